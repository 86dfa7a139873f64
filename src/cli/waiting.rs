//! What a command waits for, for a person at a terminal who would see nothing: one line on standard error, after a moment, which goes again.

use crate::deadline::{Deadline, Task};
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

/// What takes no longer needs no words.
const MOMENT: Duration = Duration::from_secs(2);

/// For the line to go at the end. A terminal that is held (Ctrl-S) is not waited for.
const CLEARING: Duration = Duration::from_millis(200);

/// Takes the line away, and the cursor to its begin.
const CLEAR: &str = "\r\x1b[K";

/// A wait. Its line goes with it.
pub(super) struct Waiting(Option<(Sender<String>, Task<()>)>);

impl Waiting {
    /// One that is shown where standard error is a terminal.
    pub(super) fn new() -> Self {
        if io::stderr().is_terminal() { Self::shown(io::stderr(), MOMENT) } else { Self(None) }
    }

    fn shown(mut to: impl Write + Send + 'static, moment: Duration) -> Self {
        let (tell, told) = mpsc::channel::<String>();
        let task = Task::start(move || {
            let begin = Deadline::after(moment);
            let (mut what, mut is_shown) = (String::new(), false);
            loop {
                let next = if begin.expired() {
                    is_shown = true;
                    let _ = write!(to, "{CLEAR}waiting for {what} ...").and_then(|()| to.flush());
                    told.recv().map_err(|_| RecvTimeoutError::Disconnected)
                } else {
                    told.recv_timeout(begin.left())
                };
                match next {
                    Ok(next) => what = next,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            if is_shown {
                let _ = write!(to, "{CLEAR}").and_then(|()| to.flush());
            }
        });
        Self(Some((tell, task)))
    }

    /// What is waited for from now on.
    pub(super) fn on(&self, what: &str) {
        if let Some((tell, _)) = &self.0 {
            // The other end is gone when the terminal is.
            let _ = tell.send(what.to_owned());
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((tell, task)) = self.0.take() {
            drop(tell);
            let _ = task.wait(&Deadline::after(CLEARING));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Terminal(Arc<Mutex<Vec<u8>>>);

    impl Write for Terminal {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Terminal {
        fn shows(&self, wanted: &str) -> bool {
            let deadline = Deadline::after(Duration::from_secs(30));
            let text = || String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            while !text().ends_with(wanted) && deadline.pause(Duration::from_millis(1)) {}
            text().ends_with(wanted)
        }
    }

    #[test]
    fn one_line_that_goes_again() {
        let terminal = Terminal::default();
        let waiting = Waiting::shown(terminal.clone(), Duration::from_millis(1));
        waiting.on("Pacemaker");
        assert!(terminal.shows("\r\x1b[Kwaiting for Pacemaker ..."));
        waiting.on("libvirt");
        assert!(terminal.shows("\r\x1b[Kwaiting for libvirt ..."));
        drop(waiting);
        assert!(terminal.shows("\r\x1b[K"));
        assert_eq!(terminal.0.lock().unwrap().iter().filter(|byte| **byte == b'\n').count(), 0);
    }

    #[test]
    fn what_is_quick_says_nothing() {
        let terminal = Terminal::default();
        let waiting = Waiting::shown(terminal.clone(), Duration::from_secs(3600));
        waiting.on("Pacemaker");
        drop(waiting);
        assert!(terminal.0.lock().unwrap().is_empty());
    }
}
