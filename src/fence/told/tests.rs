//! What is told is understood, also by others, and proves no more than it says.

use super::*;

const HOST: &str = "qemu+tcp://a/system?x=1,2";

fn at(begun: u64, over: Option<u64>) -> Begun {
    Begun { host: HOST.into(), begun, over }
}

fn note(name: &str, uuid: &str, begun: u64) -> Note {
    let ends = vec![at(begun, None)];
    Note { name: name.into(), uuid: uuid.into(), host: "a".into(), xml: None, at: 0, left: None, ends }
}

#[test]
fn what_is_told_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let here = ("node1.example".to_owned(), "b-1".to_owned());
    let nodes = Nodes { here: here.clone(), certain: true, proofs: Arc::default() };
    assert_eq!(nodes.value(folder.path()), Ok(None));
    note("web 1\"<,ä%", "u-1", 1000).write(folder.path()).unwrap();
    let value = nodes.value(folder.path()).unwrap().unwrap();
    assert!(value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') && !value.contains(['"', '<', '&', '+']), "{value}");
    let told = Told { by: here.0.clone(), name: "web 1\"<,ä%".into(), uuid: "u-1".into(), word: Word::Unseen(at(1000, None)) };
    assert_eq!(read(&value), Some((here.clone(), vec![told.clone()])));
    let proven = Told { word: Word::Proven(Proof { host: HOST.into(), begun: 7, done: 19 }), ..told.clone() };
    nodes.prove(proven.clone());
    let over = Note { ends: vec![at(1000, Some(1010))], ..note(&told.name, "u-1", 1000) };
    over.write(folder.path()).unwrap();
    let value = nodes.value(folder.path()).unwrap().unwrap();
    assert_eq!(read(&value), Some((here.clone(), vec![told.clone()])));
    assert!(is_understood_by_older(&value), "{value}");
    let seen = read(&nodes.value_of_seen(folder.path()).unwrap().unwrap()).unwrap();
    let word = Word::Unseen(at(1000, Some(1010)));
    assert_eq!(seen, (here.clone(), vec![Told { word: word.clone(), ..told.clone() }, proven]));
    let mut amended = [told.clone(), Told { uuid: "u-2".into(), ..told.clone() }];
    amended.iter_mut().for_each(|end| end.amend(&seen.1[0]));
    assert_eq!(amended, [Told { word, ..told.clone() }, Told { uuid: "u-2".into(), ..told.clone() }]);
    let left = Note { left: Some("qemu+tls://b/system".into()), ends: Vec::new(), ..note(&told.name, "u-1", 1000) };
    left.write(folder.path()).unwrap();
    let value = nodes.value(folder.path()).unwrap().unwrap();
    assert!(is_understood_by_older(&value), "{value}");
    let told = Told { word: Word::Left("qemu+tls://b/system".into()), ..told };
    assert_eq!(read(&value), Some((here, vec![told])));
}

/// Whether a version understands it that knows of no proofs.
fn is_understood_by_older(value: &str) -> bool {
    value.split(',').skip(1).all(|end| {
        let words: Vec<&str> = end.split(' ').collect();
        words.len() == 4 && (words[3] == "left" || words[3].parse::<u64>().is_ok())
    })
}

#[test]
fn a_word_of_a_later_version_is_about_its_guest_alone() {
    for word in ["soon", "7-x", "proven-1", "1 2", "7-8-9"] {
        let (_, ends) = read(&format!("n b,web1 u-1 a {word},web2 u-2 b 7")).unwrap();
        let Word::Unseen(end) = &ends[0].word else { panic!("{ends:?}") };
        assert!(end.is_open() && !end.is_young() && end.begun == u64::MAX && ends[0].name == "web1", "{word}");
        assert_eq!(ends[1].word, Word::Unseen(Begun { host: "b".into(), begun: 7, over: None }));
    }
}

#[test]
fn an_end_is_proven_by_one_that_libvirt_made_at_the_same_time() {
    let proof = Proof { host: HOST.into(), begun: 100, done: 112 };
    for (end, is_proven) in [
        (at(80, Some(120)), true),
        (at(101, Some(111)), true),
        // Who began it has no answer: it may have been for the emulator of a later run, which hangs.
        (at(101, None), false),
        // By two clocks, which differ: less can have been one after the other.
        (at(80, Some(105)), true),
        (at(80, Some(104)), false),
        (at(107, Some(120)), true),
        (at(108, Some(120)), false),
        (at(u64::MAX, Some(u64::MAX)), false),
        (Begun { host: "qemu+tcp://b/system".into(), ..at(101, Some(111)) }, false),
    ] {
        assert_eq!(proof.is_of(&end), is_proven, "{end:?}");
    }
}

#[test]
fn where_a_daemon_listens() {
    let socket =
        |path: &str| has_daemon(&format!("Num       RefCount Protocol Flags    Type St Inode Path\n0: 2 0 10000 0001 01 9 {path}\n"));
    assert!(socket("@attrd@@@@") && socket("@attrd"));
    assert!(socket("/run/x/attrd") && !socket("@cib_rw") && !has_daemon("") && !socket(""));
}

#[test]
fn mangled_words() {
    let sample = "node1 b-1,web1 u-1 qemu%2Btcp://a/system 1000,web%202 u-2 qemu%2Btls://b/system 7,web2 u-2 b left,web2 u-2 b 7-9,web2 u-2 b proven-7-9";
    assert_eq!(read(sample).unwrap().1.len(), 5);
    crate::mangled::texts(&[sample], 4000, |text| read(text).is_some());
    for wrong in ["node1", "n b,", "n b,a b c", "n b,a b c %zz", "n% b", "n%zz b"] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
}
