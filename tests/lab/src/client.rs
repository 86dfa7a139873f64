//! A client of a guest with a network card: it is at the switch, so it is another host to every node.
//!
//! It keeps one TCP connection, sends a numbered word every few milliseconds and wants each back, in order. What it sees of a move is the
//! longest time in which nothing came; what TCP repeats, and when, is in it.

use crate::cluster::Lab;
use crate::guest::{ECHO, SUM};
use crate::layout::Network;
use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a word is sent.
const PERIOD: Duration = Duration::from_millis(5);
/// A connection of which nothing is heard for so long is lost.
const LOST: Duration = Duration::from_secs(30);

/// When something came last, and the longest time in which nothing did.
#[derive(Debug)]
struct Heard {
    last: Instant,
    silence: Duration,
}

impl Heard {
    fn note(&mut self) {
        let now = Instant::now();
        self.silence = self.silence.max(now - self.last);
        self.last = now;
    }
}

/// A connection that is kept busy.
#[derive(Debug)]
pub struct Client {
    over: Arc<AtomicBool>,
    sender: JoinHandle<Result<u64>>,
    reader: JoinHandle<Result<u64>>,
    heard: Arc<Mutex<Heard>>,
}

impl Client {
    /// Connects to the guest that is host `card` of the guests' network, within `limit`: it may still be booting.
    pub fn connect(lab: &Lab, card: u32, limit: Duration) -> Result<Self> {
        let mut stream = reach(lab, card, ECHO, limit)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOST))?;
        stream.set_write_timeout(Some(LOST))?;
        let over = Arc::new(AtomicBool::new(false));
        let heard = Arc::new(Mutex::new(Heard { last: Instant::now(), silence: Duration::ZERO }));
        let (mut to, end) = (stream.try_clone()?, Arc::clone(&over));
        let sender = thread::spawn(move || {
            let mut words = 0_u64;
            while !end.load(Ordering::SeqCst) {
                to.write_all(&words.to_be_bytes()).with_context(|| format!("the connection broke after {words} words"))?;
                words += 1;
                thread::sleep(PERIOD);
            }
            // What is under way comes back before the end does.
            to.shutdown(std::net::Shutdown::Write)?;
            Ok(words)
        });
        let note = Arc::clone(&heard);
        let reader = thread::spawn(move || {
            let (mut words, mut word) = (0, [0; 8]);
            loop {
                match stream.read(&mut word[..1]) {
                    Ok(0) => return Ok(words),
                    Ok(_) => stream.read_exact(&mut word[1..]),
                    Err(error) => Err(error),
                }
                .with_context(|| format!("the connection broke, {words} words had come back"))?;
                note.lock().unwrap_or_else(PoisonError::into_inner).note();
                ensure!(u64::from_be_bytes(word) == words, "word {} came back where {words} was due", u64::from_be_bytes(word));
                words += 1;
            }
        });
        Ok(Self { over, sender, reader, heard })
    }

    /// The longest time in which nothing came, since this was asked last.
    #[must_use]
    pub fn silence(&self) -> Duration {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = heard.silence.max(heard.last.elapsed());
        heard.silence = Duration::ZERO;
        longest
    }

    /// Ends the connection in order and says how many words came back; each has, or it is an error.
    pub fn end(self) -> Result<u64> {
        self.over.store(true, Ordering::SeqCst);
        let join = |what| anyhow::anyhow!("the {what} panicked");
        let sent = self.sender.join().map_err(|_| join("sender"))?;
        let words = self.reader.join().map_err(|_| join("reader"))??;
        let sent = sent?;
        ensure!(sent == words, "{sent} words were sent, {words} came back");
        Ok(words)
    }
}

/// The checksum of a guest's pattern, as the guest says it.
pub fn sum(lab: &Lab, card: u32, limit: Duration) -> Result<u64> {
    let mut text = String::new();
    let mut stream = reach(lab, card, SUM, limit)?;
    stream.set_read_timeout(Some(LOST))?;
    stream.read_to_string(&mut text).context("the guest does not say its checksum")?;
    u64::from_str_radix(text.trim(), 16).with_context(|| format!("not a checksum: {text:?}"))
}

/// The checksum that a pattern of so many MiB has as long as it is whole; the guest's `say_sum` in `guest/init.c`.
#[must_use]
pub fn expected(mib: u32) -> u64 {
    let words = u64::from(mib) * 1024 * 1024 / 8;
    (0..words).fold(0x6b76_6d68_616c_6162, |sum: u64, word| sum.rotate_left(1) ^ (word + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A connection from the switch. The thread that makes it goes into the switch's network, and the connection stays there when it has ended.
fn reach(lab: &Lab, card: u32, port: u16, limit: Duration) -> Result<TcpStream> {
    let switch = lab.switch().path();
    let address: SocketAddr = format!("{}:{port}", Network::Guests.address(card)).parse()?;
    let connect = move || -> Result<TcpStream> {
        let network = File::open(&switch).with_context(|| format!("no switch at {switch}"))?;
        setns(&network, CloneFlags::CLONE_NEWNET).context("failed to enter the switch")?;
        let begin = Instant::now();
        loop {
            match TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
                Ok(stream) => return Ok(stream),
                Err(error) if begin.elapsed() > limit => return Err(error).with_context(|| format!("nobody answers at {address}")),
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    };
    thread::spawn(connect).join().map_err(|_| anyhow::anyhow!("the client panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_depends_on_the_order_and_the_number_of_words() {
        assert_ne!(expected(1), expected(2));
        assert_eq!(expected(0), 0x6b76_6d68_616c_6162);
    }
}
