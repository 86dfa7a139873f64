//! Opening a connection with a name and a password, for daemons that want SASL.
//!
//! libvirt asks for what it needs by a callback, and only for what its `auth.conf` does not have (`remoteAuthInteract` in libvirt's
//! `src/remote/remote_driver.c`). `virt` 0.5.0 has a callback without a place for the answer.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fmt;

use virt::connect::Connect;
use virt::sys;

use super::last;
use crate::domain::error::{Error, Kind, Result};

/// Who asks. Its text for debugging has no password in it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// The name, if there is one.
    pub name: Option<String>,
    /// The password, if there is one.
    pub password: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "…");
        f.debug_struct("Login").field("name", &self.name).field("password", &password).finish()
    }
}

/// What the callback is given.
struct Asked<'a> {
    login: &'a Login,
    /// What was asked for and is not there.
    missing: Cell<Option<&'static str>>,
}

/// What can be answered. No agent for a person's answer: nobody is there.
const ANSWERED: [sys::virConnectCredentialType; 2] = [sys::VIR_CRED_AUTHNAME, sys::VIR_CRED_PASSPHRASE];

/// Opens a connection (`virConnectOpenAuth`).
///
/// # Errors
/// [`Kind::Unreachable`], whatever kept it from being opened: the daemon is out of reach. A name or password that is wanted and not there is named.
pub fn open(uri: &str, login: &Login) -> Result<Connect> {
    let uri = CString::new(uri).map_err(|_| Error::new(Kind::Unreachable, "the URI has a NUL in it"))?;
    let asked = Asked { login, missing: Cell::new(None) };
    let mut kinds = ANSWERED.map(|kind| c_int::try_from(kind).unwrap_or_default());
    let mut auth = sys::virConnectAuth {
        credtype: kinds.as_mut_ptr(),
        ncredtype: c_uint::try_from(kinds.len()).unwrap_or_default(),
        cb: Some(answer),
        cbdata: (&raw const asked).cast_mut().cast(),
    };
    // SAFETY: the name ends with NUL; it, the kinds and what the callback is given outlive the call, after which libvirt does not use them.
    let connect = unsafe { sys::virConnectOpenAuth(uri.as_ptr(), &raw mut auth, 0) };
    if connect.is_null() {
        let error = last();
        let text = asked.missing.get().map_or(error.text, |what| format!("it wants a {what} (SASL), and none is given"));
        return Err(Error::new(Kind::Unreachable, text));
    }
    // SAFETY: libvirt has just made it, and its one reference is handed over.
    Ok(unsafe { Connect::from_ptr(connect) })
}

/// libvirt's question (`virConnectAuthCallbackPtr`): fills in the answers; -1 if one is not there.
unsafe extern "C" fn answer(credentials: sys::virConnectCredentialPtr, count: c_uint, asked: *mut c_void) -> c_int {
    let Ok(count) = usize::try_from(count) else { return -1 };
    // SAFETY: libvirt gives back what `open` gave it, which lives until `open` returns.
    let asked = unsafe { &*asked.cast::<Asked<'_>>() };
    // SAFETY: libvirt announces `count` entries, and nobody else uses them during the call.
    let credentials = unsafe { std::slice::from_raw_parts_mut(credentials, count) };
    for credential in credentials {
        let (what, value) = match sys::virConnectCredentialType::try_from(credential.type_).unwrap_or_default() {
            sys::VIR_CRED_AUTHNAME => ("name", &asked.login.name),
            sys::VIR_CRED_PASSPHRASE => ("password", &asked.login.password),
            _ => ("kind of answer that nobody has", &None),
        };
        let Some(text) = value.as_ref().and_then(|value| CString::new(value.as_str()).ok()) else {
            asked.missing.set(Some(what));
            return -1;
        };
        // libvirt frees it, so that it has to be malloc's.
        // SAFETY: the text ends with NUL.
        let copy: *mut c_char = unsafe { libc::strdup(text.as_ptr()) };
        if copy.is_null() {
            return -1;
        }
        credential.result = copy;
        credential.resultlen = c_uint::try_from(text.as_bytes().len()).unwrap_or_default();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn ask(login: &Login, kinds: &[sys::virConnectCredentialType]) -> (c_int, Vec<Option<String>>, Option<&'static str>) {
        let asked = Asked { login, missing: Cell::new(None) };
        let mut credentials: Vec<sys::virConnectCredential> = kinds
            .iter()
            // SAFETY: a C struct of numbers and pointers, for which zeros are right.
            .map(|kind| sys::virConnectCredential { type_: c_int::try_from(*kind).unwrap(), ..unsafe { std::mem::zeroed() } })
            .collect();
        let count = c_uint::try_from(kinds.len()).unwrap();
        // SAFETY: the entries and what is asked are alive.
        let code = unsafe { answer(credentials.as_mut_ptr(), count, (&raw const asked).cast_mut().cast()) };
        let texts = credentials
            .iter()
            .map(|credential| {
                (!credential.result.is_null()).then(|| {
                    // SAFETY: strdup made it.
                    let text = unsafe { CStr::from_ptr(credential.result) }.to_str().unwrap().to_owned();
                    assert_eq!(text.len(), usize::try_from(credential.resultlen).unwrap());
                    // SAFETY: as libvirt does.
                    unsafe { libc::free(credential.result.cast()) };
                    text
                })
            })
            .collect();
        (code, texts, asked.missing.get())
    }

    #[test]
    fn what_is_answered() {
        let login = Login { name: Some("ha".into()), password: Some("Geheim".into()) };
        assert_eq!(ask(&login, &ANSWERED), (0, vec![Some("ha".into()), Some("Geheim".into())], None));
        let (code, _, missing) = ask(&Login::default(), &[sys::VIR_CRED_PASSPHRASE]);
        assert_eq!((code, missing), (-1, Some("password")));
        let (code, texts, missing) = ask(&login, &[sys::VIR_CRED_ECHOPROMPT]);
        assert_eq!((code, texts), (-1, vec![None]));
        assert!(missing.is_some());
        assert!(!format!("{login:?}").contains("Geheim"));
    }
}
