//! What a guest needs of its host before it can be there at all.

/// What a guest needs of its host, each as far as the definition says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// The domain's type: `kvm`, `qemu`.
    pub kind: Option<String>,
    /// The emulator's path.
    pub emulator: Option<String>,
    /// The CPU architecture.
    pub architecture: Option<String>,
    /// The machine type.
    pub machine: Option<String>,
}

impl Platform {
    /// That of a definition; of what is none nothing is known.
    #[must_use]
    pub fn of(xml: &str) -> Self {
        let Ok(document) = roxmltree::Document::parse(xml) else { return Self::default() };
        let root = document.root_element();
        let find = |path: &[&str]| path.iter().try_fold(root, |node, name| node.children().find(|child| child.has_tag_name(*name)));
        let system = find(&["os", "type"]);
        let attribute = |name: &str| system.and_then(|node| node.attribute(name)).map(Into::into);
        Self {
            kind: root.attribute("type").map(Into::into),
            emulator: find(&["devices", "emulator"]).and_then(|node| node.text()).map(|text| text.trim().to_owned()),
            architecture: attribute("arch"),
            machine: attribute("machine"),
        }
    }
}
