//! The messages: the few calls, and the answers to them.
//!
//! From libvirt's `src/rpc/virnetprotocol.x` (frame, header, error), `src/remote/remote_protocol.x` (procedures and what goes with them),
//! `src/remote/qemu_protocol.x` (the guest agent) and `src/rpc/virkeepaliveprotocol.x`. Numbers and layouts there never change: a daemon of
//! any version understands a client of any other.

use super::xdr::{Reader, Writer};
use crate::domain::state::Condition;
use crate::uuid;

/// `REMOTE_PROGRAM`, `REMOTE_PROTOCOL_VERSION`.
const PROGRAM: (u32, u32) = (0x2000_8086, 1);
/// `QEMU_PROGRAM`, `QEMU_PROTOCOL_VERSION`.
const QEMU: (u32, u32) = (0x2000_8087, 1);
/// `KEEPALIVE_PROGRAM`, `KEEPALIVE_PROTOCOL_VERSION`.
const KEEPALIVE: (u32, u32) = (0x6b65_6570, 1);
/// `KEEPALIVE_PROC_PING`, `KEEPALIVE_PROC_PONG`.
const PING: u32 = 1;
const PONG: u32 = 2;
/// `virNetMessageType`: `VIR_NET_CALL`, `VIR_NET_REPLY`, `VIR_NET_MESSAGE` (an event nobody asked for now).
const CALL: u32 = 0;
const REPLY: u32 = 1;
const EVENT: u32 = 2;
/// `virNetMessageStatus`: `VIR_NET_OK`, `VIR_NET_ERROR`.
const FINE: u32 = 0;
const FAILED: u32 = 1;
/// `VIR_CONNECT_RO`: the daemon itself then refuses everything but reading on this connection (`remoteDispatchConnectOpen` of
/// `src/remote/remote_daemon_dispatch.c`).
const READ_ONLY: u32 = 1;
/// `REMOTE_AUTH_NONE`.
const NO_AUTHENTICATION: u32 = 0;
/// `VIR_ERR_NO_DOMAIN` of `include/libvirt/virterror.h`.
pub(super) const NO_DOMAIN: i32 = 42;
/// `VIR_ERR_AGENT_UNRESPONSIVE`: also where nobody was asked.
pub(super) const AGENT_SILENT: i32 = 86;

/// What the guest agent is asked; the only question there is for it, and it changes nothing.
const PING_AGENT: &str = "{\"execute\":\"guest-ping\"}";

/// Bytes of the length word and the header of six words; the length counts itself.
pub(super) const HEAD: usize = 28;
/// The longest message taken. The answers here are a few hundred bytes; libvirt itself allows 16 MiB and more.
pub(super) const LONGEST: usize = 256 * 1024;

/// A domain as the protocol knows it (`remote_nonnull_domain`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Domain {
    pub(super) name: String,
    pub(super) uuid: [u8; uuid::LENGTH],
    pub(super) id: i32,
}

impl Domain {
    fn put(&self, writer: &mut Writer) {
        writer.string(&self.name);
        writer.uuid(&self.uuid);
        writer.signed(self.id);
    }
}

/// All that can be said: there is no call here that changes anything.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call<'a> {
    /// Which authentication the daemon asks for. Always first: the daemon answers nothing else before.
    Authentication,
    /// Open the driver of this URI, for reading.
    Open(&'a str),
    /// Look a domain up by its name.
    Name(&'a str),
    /// Look a domain up by its UUID.
    Uuid(&'a [u8; uuid::LENGTH]),
    /// The state of a domain and the reason for it.
    State(&'a Domain),
    /// Open the driver of this URI for more than reading: the daemon passes nothing on to a guest agent otherwise.
    OpenForAgent(&'a str),
    /// Ask a domain's guest agent for a sign of life; the daemon waits so many seconds for it.
    PingAgent(&'a Domain, i32),
    /// How large a domain is.
    Info(&'a Domain),
    /// The end of the conversation.
    Close,
}

impl Call<'_> {
    /// The program that the procedure is of.
    fn program(self) -> (u32, u32) {
        if matches!(self, Self::PingAgent(..)) { QEMU } else { PROGRAM }
    }

    /// `remote_procedure`, `qemu_procedure`.
    fn number(self) -> u32 {
        match self {
            Self::Open(_) | Self::OpenForAgent(_) => 1,
            Self::Close => 2,
            Self::PingAgent(..) => 3,
            Self::Info(_) => 16,
            Self::Name(_) => 23,
            Self::Uuid(_) => 24,
            Self::Authentication => 66,
            Self::State(_) => 212,
        }
    }

    /// The whole message.
    pub(super) fn message(self, serial: u32) -> Vec<u8> {
        framed(self.program(), self.number(), CALL, serial, |writer| match self {
            Self::Authentication | Self::Close => {}
            Self::Open(uri) | Self::OpenForAgent(uri) => {
                writer.number(1); // the URI is there
                writer.string(uri);
                writer.number(if matches!(self, Self::Open(_)) { READ_ONLY } else { 0 });
            }
            Self::Name(name) => writer.string(name),
            Self::Uuid(uuid) => writer.uuid(uuid),
            Self::Info(domain) => domain.put(writer),
            Self::State(domain) => {
                domain.put(writer);
                writer.number(0); // flags: none are defined
            }
            Self::PingAgent(domain, seconds) => {
                domain.put(writer);
                writer.string(PING_AGENT);
                writer.signed(seconds);
                writer.number(0); // flags: none are defined
            }
        })
    }
}

/// The answer to a sign of life the daemon asks for.
pub(super) fn pong() -> Vec<u8> {
    framed(KEEPALIVE, PONG, EVENT, 0, |_| {})
}

fn framed((program, version): (u32, u32), procedure: u32, kind: u32, serial: u32, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    for word in [0, program, version, procedure, kind, serial, FINE] {
        writer.number(word);
    }
    body(&mut writer);
    let length = u32::try_from(writer.0.len()).unwrap_or(u32::MAX);
    if let Some(word) = writer.0.first_chunk_mut() {
        *word = length.to_be_bytes();
    }
    writer.0
}

/// The length a message says it has, once its first word is there; `Err` if no message has that length.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(length) = Reader(bytes).number() else { return Ok(None) };
    match usize::try_from(length) {
        Ok(length) if (HEAD..=LONGEST).contains(&length) => Ok(Some(length)),
        _ => Err(format!("a message of {length} bytes")),
    }
}

/// What a message is to someone who waits for the answer to a call.
#[derive(Clone, Copy)]
pub(super) enum Heard<'a> {
    /// The answer: what comes after the header.
    Answer(Reader<'a>),
    /// An error instead of the answer.
    Failure(Reader<'a>),
    /// A question for a sign of life.
    Ping,
    /// Nothing of interest.
    Nothing,
}

/// Takes a whole message apart. `Err` says what is wrong with it.
pub(super) fn hear<'a>(message: &'a [u8], call: Call, serial: u32) -> Result<Heard<'a>, String> {
    let mut reader = Reader(message);
    let mut word = || reader.number().ok_or_else(|| "a message that is cut off".to_owned());
    let (_length, program, procedure, kind, number, status) = (word()?, (word()?, word()?), word()?, word()?, word()?, word()?);
    if program == KEEPALIVE {
        return Ok(if procedure == PING { Heard::Ping } else { Heard::Nothing });
    }
    if program != PROGRAM && program != call.program() {
        return Err(format!("a message of program {:#x} version {}", program.0, program.1));
    }
    match (kind, status) {
        (EVENT, _) => Ok(Heard::Nothing),
        (REPLY, FINE | FAILED) if number != serial || procedure != call.number() => {
            Err(format!("an answer to call {number} of procedure {procedure}, not to {serial} of {}", call.number()))
        }
        (REPLY, FINE) => Ok(Heard::Answer(reader)),
        (REPLY, FAILED) => Ok(Heard::Failure(reader)),
        _ => Err(format!("a message of type {kind} with status {status}")),
    }
}

/// Whether the daemon is content without authentication (`remote_auth_list_ret`): what it offers first is what its clients do.
pub(super) fn open_to_all(mut reader: Reader) -> Option<bool> {
    let count = reader.number().filter(|&count| count <= 20)?; // REMOTE_AUTH_TYPE_LIST_MAX
    let kinds = (0..count).map(|_| reader.number()).collect::<Option<Vec<_>>>()?;
    reader.end()?;
    Some(kinds.first() == Some(&NO_AUTHENTICATION))
}

/// The domain found (`remote_domain_lookup_by_name_ret` and its twin).
pub(super) fn found(mut reader: Reader) -> Option<Domain> {
    let name = String::from_utf8(reader.string()?.to_vec()).ok()?;
    let (uuid, id) = (reader.uuid()?, reader.signed()?);
    reader.end()?;
    Some(Domain { name, uuid, id })
}

/// The state of the domain (`remote_domain_get_state_ret`).
pub(super) fn state(mut reader: Reader) -> Option<Condition> {
    let (state, reason) = (reader.signed()?, reader.signed()?);
    reader.end()?;
    Some(Condition::from_numbers(state, reason))
}

/// The agent's own words (`qemu_domain_agent_command_ret`); what they are does not matter, it has answered.
pub(super) fn pulse(mut reader: Reader) -> Option<()> {
    reader.optional(Reader::string)?;
    reader.end()
}

/// What of a host a guest takes, as `virsh dominfo` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// CPUs.
    pub cpus: u64,
    /// The most memory it may have, in KiB.
    pub memory: u64,
}

/// The size of the domain (`remote_domain_get_info_ret`): its state, the most memory it may have, what it has now, CPUs, CPU time.
pub(super) fn size(mut reader: Reader) -> Option<Size> {
    let (_state, memory, _now, cpus, _time) = (reader.number()?, reader.long()?, reader.long()?, reader.number()?, reader.long()?);
    reader.end()?;
    Some(Size { cpus: cpus.into(), memory })
}

/// Number (`virErrorNumber`) and text of an error (`virNetMessageError`); the rest of it is read, and has to be right, but is not used.
pub(super) fn failure(mut reader: Reader) -> Option<(i32, String)> {
    let (code, _part) = (reader.signed()?, reader.signed()?);
    let text = reader.optional(Reader::string)?.map_or_else(|| "no text".into(), String::from_utf8_lossy);
    let _level = reader.signed()?;
    reader.optional(|domain| domain.string().and(domain.uuid()).and(domain.signed()))?;
    for _ in 0..3 {
        reader.optional(Reader::string)?;
    }
    let (_first, _second) = (reader.signed()?, reader.signed()?);
    reader.optional(|network| network.string().and(network.uuid()))?;
    reader.end()?;
    Some((code, text.into_owned()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A reply as a daemon sends it, for the tests of the conversation as well.
    pub(in crate::domain::wire) fn reply(procedure: u32, serial: u32, fine: bool, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
        reply_of(PROGRAM, procedure, serial, fine, body)
    }

    /// Like [`reply`], but of the program that asks agents.
    pub(in crate::domain::wire) fn agents_reply(serial: u32, fine: bool, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
        reply_of(QEMU, 3, serial, fine, body)
    }

    fn reply_of(program: (u32, u32), procedure: u32, serial: u32, fine: bool, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut bytes = framed(program, procedure, REPLY, serial, body);
        bytes[27] = u8::from(!fine);
        bytes
    }

    /// The error libvirt 9.0 sends for a domain that is not there.
    pub(in crate::domain::wire) fn not_there(writer: &mut Writer, code: i32) {
        error(writer, code, "Domain not found: no domain with matching name 'web1'");
    }

    /// Any error.
    pub(in crate::domain::wire) fn error(writer: &mut Writer, code: i32, text: &str) {
        writer.signed(code);
        writer.signed(10); // VIR_FROM_QEMU
        writer.number(1);
        writer.string(text);
        writer.signed(2); // VIR_ERR_ERROR
        writer.number(0);
        for part in ["Domain not found: %s", "no domain with matching name 'web1'"] {
            writer.number(1);
            writer.string(part);
        }
        writer.number(0);
        writer.signed(-1);
        writer.signed(-1);
        writer.number(0);
    }

    /// An event, a sign of life asked for, and one given.
    pub(in crate::domain::wire) fn by_the_way() -> [Vec<u8>; 3] {
        [framed(PROGRAM, 318, EVENT, 0, |writer| writer.string("what")), framed(KEEPALIVE, PING, EVENT, 0, |_| {}), pong()]
    }

    const WEB1: [u8; uuid::LENGTH] = [0x4d, 0xea, 0x22, 0xb3, 0x1d, 0x52, 0xd8, 0xf3, 0x25, 0x16, 0x78, 0x2e, 0x98, 0xab, 0x3f, 0xa0];

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| u8::try_from(digit).unwrap()).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    #[test]
    fn calls_byte_by_byte() {
        let domain = Domain { name: "web1".into(), uuid: WEB1, id: 3 };
        let cases = [
            (Call::Authentication, "0000001c 20008086 00000001 00000042 00000000 00000007 00000000"),
            (
                Call::Open("qemu:///system"),
                "00000038 20008086 00000001 00000001 00000000 00000007 00000000 00000001 0000000e 71656d753a2f2f2f 73797374656d 0000 00000001",
            ),
            (Call::Name("web1"), "00000024 20008086 00000001 00000017 00000000 00000007 00000000 00000004 77656231"),
            (Call::Uuid(&WEB1), "0000002c 20008086 00000001 00000018 00000000 00000007 00000000 4dea22b3 1d52d8f3 2516782e 98ab3fa0"),
            (
                Call::State(&domain),
                "0000003c 20008086 00000001 000000d4 00000000 00000007 00000000 00000004 77656231 4dea22b3 1d52d8f3 2516782e 98ab3fa0 00000003 00000000",
            ),
            (
                Call::OpenForAgent("qemu:///system"),
                "00000038 20008086 00000001 00000001 00000000 00000007 00000000 00000001 0000000e 71656d753a2f2f2f 73797374656d 0000 00000000",
            ),
            (
                Call::PingAgent(&domain, 5),
                "0000005c 20008087 00000001 00000003 00000000 00000007 00000000 00000004 77656231 4dea22b3 1d52d8f3 2516782e 98ab3fa0 00000003 \
                 00000018 7b2265786563757465223a2267756573742d70696e67227d 00000005 00000000",
            ),
            (
                Call::Info(&domain),
                "00000038 20008086 00000001 00000010 00000000 00000007 00000000 00000004 77656231 4dea22b3 1d52d8f3 2516782e 98ab3fa0 00000003",
            ),
            (Call::Close, "0000001c 20008086 00000001 00000002 00000000 00000007 00000000"),
        ];
        for (call, bytes) in cases {
            assert_eq!(call.message(7), hex(bytes), "{call:?}");
        }
        assert_eq!(pong(), hex("0000001c 6b656570 00000001 00000002 00000002 00000000 00000000"));
    }

    fn body(message: &[u8]) -> Reader<'_> {
        Reader(&message[HEAD..])
    }

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let lookup = reply(23, 3, true, |writer| {
            writer.string("web12");
            writer.uuid(&WEB1);
            writer.signed(-1);
        });
        assert_eq!(found(body(&lookup)), Some(Domain { name: "web12".into(), uuid: WEB1, id: -1 }));
        let states = reply(212, 4, true, |writer| [3, 5].map(|word| writer.signed(word)).into_iter().collect());
        assert_eq!(state(body(&states)), Some(Condition::PAUSED_IO_ERROR));
        let info = hex("00000001 0000000000014000 0000000000010000 00000002 0000000012345678");
        assert_eq!(size(Reader(&info)), Some(Size { cpus: 2, memory: 80 * 1024 }));
        assert_eq!(size(Reader(&info[..28])), None);
        let error = reply(23, 3, false, |writer| not_there(writer, NO_DOMAIN));
        assert_eq!(failure(body(&error)), Some((42, "Domain not found: no domain with matching name 'web1'".into())));
        let offer = |kinds: &[u32]| {
            let count = u32::try_from(kinds.len()).unwrap();
            let words: Vec<u8> = [&[count], kinds].concat().into_iter().flat_map(u32::to_be_bytes).collect();
            open_to_all(Reader(&words))
        };
        assert_eq!(
            (offer(&[0]), offer(&[2]), offer(&[2, 0]), offer(&[]), offer(&[0; 21])),
            (Some(true), Some(false), Some(false), Some(false), None)
        );
        for at in HEAD..error.len() {
            assert_eq!(failure(Reader(&error[HEAD..at])), None, "{at}");
        }
        for at in HEAD..lookup.len() {
            assert_eq!(found(Reader(&lookup[HEAD..at])), None, "{at}");
        }
        let longer = [&lookup[..], &[0; 4]].concat();
        assert_eq!(found(body(&longer)), None);
    }

    #[test]
    fn lengths_no_message_has() {
        assert_eq!(length(&[0, 0, 0]), Ok(None));
        assert_eq!(length(&[0, 0, 0, 28, 9]), Ok(Some(28)));
        assert!(length(&[0, 0, 0, 27]).is_err());
        assert!(length(&[0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
