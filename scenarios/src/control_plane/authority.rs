//! Certificates of the documents' authority that say, or do not say, that it is one.

/// What makes a certificate an authority's (RFC 5280, 4.2.1.9).
pub(super) const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE";
/// An extension, and with it a certificate of version 3, that says nothing of the kind.
pub(super) const NO_AUTHORITY: &str = "subjectKeyIdentifier=hash";

/// The command for `NAME.cert`: the authority's key again, under that name and with an extension.
pub(super) fn self_signed(name: &str, extension: &str) -> String {
    format!(
        "openssl x509 -new -key ca.key -out {name}.cert -subj /CN={name}/ \
         -extfile <(echo {extension})"
    )
}
