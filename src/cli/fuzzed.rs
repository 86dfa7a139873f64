//! The entry of the fuzzing: the configuration of fence devices that are converted.

use super::convert::{configured, convert, print};

/// What is printed for a shell is one line for each tool, whatever the configuration holds; the rest are comments.
pub fn fence_devices(data: &[u8]) {
    crate::fuzzed::text(data, |text| {
        super::doctor::seconds(text);
        super::overview::a_move("node1", text);
        for device in configured(text, &[]).into_iter().flatten() {
            let printed = print(&device, &convert(&device, None));
            assert!(printed.contains("\npcs stonith create ") && printed.contains("\ncrm configure primitive "));
            let comments = printed.lines().take_while(|line| line.starts_with("# "));
            assert!(comments.count() >= 1);
        }
    });
}
