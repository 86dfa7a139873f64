//! Input that was changed at random, for the tests of everything that reads what others wrote: the same in every run.

/// xorshift64*.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % u64::try_from(limit).unwrap()).unwrap()
    }
}

/// What parsers stumble over.
const PIECES: &[&[u8]] = &[
    b"<",
    b">",
    b"</",
    b"/>",
    b"<!",
    b"<?",
    b"<![CDATA[",
    b"]]>",
    b"<!--",
    b"-->",
    b"<!DOCTYPE a [<!ENTITY b 'bbbb'>]>",
    b"&b;",
    b"&#0;",
    b"&#x110000;",
    b"&lt;",
    b"'",
    b"\"",
    b"=",
    b"==",
    b"\0",
    b"\n",
    b"\r\n",
    b"\xff",
    b"\xc3",
    b"\xf0\x9f\x92\xa9",
    b"xmlns:q='q'",
    b"q:",
    b"--",
    b"-",
    b"+",
    b"://",
    b"/",
    b"[",
    b"]",
    b"@",
    b"%",
    b"%n",
    b"#",
    b";",
    b",",
    b" ",
    b"(",
    b")",
    b"0",
    b"-1",
    b"18446744073709551616",
    b"999999999999999999999999",
    b"1e309",
    b"0x",
];

/// Gives `take` one sample after another, each changed in one to six places; `rounds` of them.
pub(crate) fn mangled(samples: &[&str], rounds: usize, mut take: impl FnMut(&[u8])) {
    let mut dice = Dice::new(0x6b_766d_6861);
    for round in 0..rounds {
        let mut bytes = samples[round % samples.len()].as_bytes().to_vec();
        for _ in 0..=dice.below(6) {
            change(&mut bytes, &mut dice);
        }
        take(&bytes);
    }
}

fn change(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.below(bytes.len() + 1);
    let end = (at + dice.below(40)).min(bytes.len());
    match dice.below(6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        1 => drop(bytes.drain(at..end)),
        2 => bytes.truncate(at),
        // Some of it once more, somewhere else, and now and then very often.
        3 => {
            let piece = bytes[at..end].repeat(if dice.below(20) == 0 { 500 } else { 1 });
            let to = dice.below(bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        _ => {
            let piece = PIECES[dice.below(PIECES.len())].repeat(if dice.below(20) == 0 { 2000 } else { 1 });
            bytes.splice(at..at, piece);
        }
    }
}

/// As [`mangled`], for what reads text; how often `understood` said yes and no. Both must have been: else nothing was tried.
pub(crate) fn texts(samples: &[&str], rounds: usize, mut understood: impl FnMut(&str) -> bool) {
    let mut counts = [0_usize; 2];
    mangled(samples, rounds, |bytes| counts[usize::from(understood(&String::from_utf8_lossy(bytes)))] += 1);
    assert!(counts.iter().all(|count| *count > 0), "refused and understood: {counts:?}");
}
