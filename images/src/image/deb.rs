use crate::oci::Program;

/// A Debian package made from a bundle, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    /// Its name.
    pub name: &'static str,
    /// Its version: that of the program, and a revision in the style of Kubernetes' own packages.
    pub version: String,
    /// What it needs, in the syntax of `Depends`.
    pub depends: &'static [&'static str],
    /// What it is, in one line.
    pub about: &'static str,
    /// Its programs: what each is, and its path in the guest without the leading slash.
    pub programs: Vec<(Program, String)>,
    /// Its other files: path in the guest without the leading slash, and text.
    pub texts: Vec<(&'static str, &'static str)>,
}

impl Package {
    /// The file DEBIAN/control (deb-control(5)).
    pub(super) fn control(&self) -> String {
        let depends = match self.depends {
            [] => String::new(),
            depends => format!("Depends: {}\n", depends.join(", ")),
        };
        format!(
            "Package: {}\nVersion: {}\nArchitecture: amd64\nMaintainer: podwire <podwire@podwire.invalid>\n\
             Section: admin\nPriority: optional\n{depends}Description: {}\n",
            self.name, self.version, self.about,
        )
    }
}
