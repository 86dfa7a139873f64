//! Where the word of a libvirt is not enough.

use super::Whereabouts;

impl Whereabouts {
    /// libvirt may have forgotten a guest whose emulator hangs in the kernel. So where Pacemaker has the guest, or a stop has failed, its word
    /// alone does not prove that nothing is there.
    pub(super) fn doubt(&mut self, id: &str) {
        let Some(view) = &self.view else { return };
        // After a move Pacemaker may have it on both nodes for a while; then a copy was found.
        let placed = view.resource(id).filter(|_| self.copies().is_empty());
        let nodes = placed.map_or_else(Vec::new, |placed| placed.nodes.clone());
        let stops: Vec<&str> = view.failures.iter().filter(|failure| failure.is_stop_of(id)).map(|failure| failure.node.as_str()).collect();
        for place in self.places.iter_mut().filter(|place| !place.here && place.copy == Some(false) && place.off.is_none()) {
            let what = if stops.contains(&place.node.as_str()) {
                "a stop has failed there"
            } else if nodes.contains(&place.node) {
                "Pacemaker has it there"
            } else {
                continue;
            };
            (place.copy, place.unseen) = (None, true);
            place.trouble = Some(format!("its libvirt has none, but {what}, and only the node itself sees its processes: ask there"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Place;
    use super::super::tests::{absent, found};

    const ON_N2: &str = "<resources><resource id='web1' role='Started' failed='true'><node name='n2'/></resource></resources>";
    const STOP: &str = "<failures><failure op_key='web1_stop_0' node='n2' exitreason='it hangs'/></failures>";

    fn doubted(said: &str, places: &[Place]) -> Vec<(Option<bool>, bool)> {
        let mut found = found(said, places);
        found.doubt("web1");
        found.places.iter().map(|place| (place.copy, place.unseen)).collect()
    }

    #[test]
    fn the_word_of_a_libvirt_is_doubted_where_pacemaker_has_the_guest() {
        let (none, doubt) = ((Some(false), false), (None, true));
        let all = [absent("n1"), absent("n2"), absent("n3")];
        assert_eq!(doubted("", &all), [none; 3]);
        assert_eq!(doubted(ON_N2, &all), [none, doubt, none]);
        assert_eq!(doubted(STOP, &all), [none, doubt, none]);
        // This node sees its processes; one that is off has none.
        let here = ON_N2.replace("n2", "n1") + &STOP.replace("n2", "n1");
        assert_eq!(doubted(&here, &all), [none; 3]);
        assert_eq!(doubted(STOP, &[absent("n1"), Place { off: Some(1), ..absent("n2") }]), [none; 2]);
        assert_eq!(doubted(&STOP.replace("web1", "web10"), &all), [none; 3]);
    }

    #[test]
    fn a_move_that_has_just_ended_is_no_doubt() {
        let both = "<resources><resource id='web1' role='Started'><node name='n1'/><node name='n2'/></resource></resources>";
        let here = Place { copy: Some(true), runs: true, ..absent("n1") };
        let (some, none) = ((Some(true), false), (Some(false), false));
        assert_eq!(doubted(both, &[here.clone(), absent("n2")]), [some, none]);
        assert_eq!(doubted(STOP, &[here, absent("n2")]), [some, (None, true)], "a stop that failed there counts");
    }
}
