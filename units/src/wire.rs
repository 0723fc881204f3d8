//! D-Bus between two ends without a bus: as much of it as calls to systemd's private socket take.
//!
//! zbus cannot speak to that socket: systemd names itself as the sender of each message by a name that only a bus may give out, and
//! zbus (5.19) panics on it. Bodies are zvariant's; what is here is the frame around them.

use std::io;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use zvariant::{DynamicType, Endian, Type, serialized::Context, serialized::Data, to_bytes};

const CALL: u8 = 1;
const ANSWER: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
const VERSION: u8 = 1;
/// By the specification no message is longer.
const LONGEST: usize = 128 << 20;

/// An authenticated stream; messages are read and written one at a time.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: UnixStream,
    serial: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Message {
    kind: u8,
    /// Of the call that this answers.
    answers: Option<u32>,
    member: String,
    error: String,
    body: Vec<u8>,
}

impl Message {
    /// None unless it is the answer to `serial`; an error answer is an error.
    pub(crate) fn answer_to(self, serial: u32) -> Option<io::Result<Self>> {
        if self.answers != Some(serial) {
            return None;
        }
        match self.kind {
            ANSWER => Some(Ok(self)),
            ERROR => {
                let why = self.body::<String>().unwrap_or_default();
                Some(Err(io::Error::other(format!("{why} ({})", self.error))))
            }
            _ => None,
        }
    }

    pub(crate) fn is_signal(&self, member: &str) -> bool {
        self.kind == SIGNAL && self.member == member
    }

    pub(crate) fn body<T: serde::de::DeserializeOwned + Type>(&self) -> io::Result<T> {
        let data = Data::new(self.body.as_slice(), Context::new_dbus(Endian::Little, 0));
        let (value, _) = data.deserialize::<T>().map_err(|error| invalid(error.to_string()))?;
        Ok(value)
    }
}

impl Wire {
    /// As the user that we are: the kernel tells systemd, the number is only repeated.
    pub(crate) async fn open(mut stream: UnixStream, uid: u32) -> io::Result<Self> {
        let hex: String = uid.to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
        // BEGIN goes along: what systemd reads together with it, such as a first call, would lie there until more comes.
        stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes()).await?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < 1024 {
            line.push(stream.read_u8().await?);
        }
        if !line.starts_with(b"OK ") {
            let refusal = String::from_utf8_lossy(&line).trim().to_owned();
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal));
        }
        Ok(Self { stream, serial: 0 })
    }

    /// Sends a call and returns its serial number.
    pub(crate) async fn call<B>(&mut self, path: &str, interface: &str, member: &str, body: &B) -> io::Result<u32>
    where
        B: serde::Serialize + DynamicType,
    {
        self.serial += 1;
        let signature = body.signature().to_string_no_parens();
        let body = to_bytes(Context::new_dbus(Endian::Little, 0), body).map_err(|error| invalid(error.to_string()))?;
        let call = frame(self.serial, [(1, 'o', path), (2, 's', interface), (3, 's', member), (8, 'g', &signature)], body.bytes());
        self.stream.write_all(&call).await?;
        Ok(self.serial)
    }

    pub(crate) async fn read(&mut self) -> io::Result<Message> {
        let mut start = [0; 16];
        self.stream.read_exact(&mut start).await?;
        let [endian, kind, ..] = start;
        if endian != b'l' {
            return Err(invalid("the other end does not write little-endian".into()));
        }
        let number = |at: usize| u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]) as usize;
        let (body, fields) = (number(4), number(12));
        if body.max(fields) > LONGEST {
            return Err(invalid("a message is longer than any may be".into()));
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.stream.read_exact(&mut rest).await?;
        let message = Message { kind, body: rest.split_off(fields.next_multiple_of(8)), ..Message::default() };
        read_fields(&rest[..fields], message).ok_or_else(|| invalid("a message's header is damaged".into()))
    }
}

/// A call without flags.
fn frame(serial: u32, fields: [(u8, char, &str); 4], body: &[u8]) -> Vec<u8> {
    let mut call = vec![b'l', CALL, 0, VERSION];
    call.extend(length(body.len()));
    call.extend(serial.to_le_bytes());
    call.extend([0; 4]); // of the fields; filled in below
    let begin = call.len();
    for (code, kind, text) in fields.into_iter().filter(|(_, _, text)| !text.is_empty()) {
        pad(&mut call, 8);
        call.extend([code, 1, kind as u8, 0]);
        match kind {
            'g' => call.push(u8::try_from(text.len()).unwrap_or(u8::MAX)),
            _ => {
                pad(&mut call, 4);
                call.extend(length(text.len()));
            }
        }
        call.extend(text.as_bytes());
        call.push(0);
    }
    let fields = length(call.len() - begin);
    call[begin - 4..begin].copy_from_slice(&fields);
    pad(&mut call, 8);
    call.extend(body);
    call
}

/// The fields begin at a multiple of eight, so places in them are aligned as places in the message.
fn read_fields(fields: &[u8], mut message: Message) -> Option<Message> {
    let mut at = 0_usize;
    while at < fields.len() {
        at = at.next_multiple_of(8);
        let (code, kind) = (*fields.get(at)?, *fields.get(at + 2)?);
        at += 4;
        if kind == b'g' {
            at += usize::from(*fields.get(at)?) + 2;
            continue;
        }
        at = at.next_multiple_of(4);
        let number = u32::from_le_bytes(fields.get(at..at + 4)?.try_into().ok()?);
        at += 4;
        if kind == b'u' {
            message.answers = (code == 5).then_some(number).or(message.answers);
            continue;
        }
        let text = fields.get(at..at.checked_add(number as usize)?)?;
        let text = || String::from_utf8_lossy(text).into_owned();
        match code {
            3 => message.member = text(),
            4 => message.error = text(),
            _ => {}
        }
        at += number as usize + 1;
    }
    Some(message)
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Speaks for systemd: takes the greeting, then answers the first call with `answer`.
    async fn manager(mut stream: UnixStream, answer: Vec<u8>) -> Vec<u8> {
        let mut greeting = [0; 64];
        let read = stream.read(&mut greeting).await.unwrap();
        assert_eq!(&greeting[..read], b"\0AUTH EXTERNAL 31303030\r\nBEGIN\r\n", "no call may come together with BEGIN");
        stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").await.unwrap();
        let mut call = vec![0; 4096];
        let mut length = 0;
        while length < 16 {
            length += stream.read(&mut call[length..]).await.unwrap();
        }
        stream.write_all(&answer).await.unwrap();
        call.truncate(length);
        call
    }

    /// As systemd writes it: with itself as the sender.
    fn answer(kind: u8, serial: u32, code: u8, extra: (u8, u8, &[u8]), body: &[u8]) -> Vec<u8> {
        let mut message = vec![b'l', kind, 1, 1];
        message.extend(length(body.len()));
        message.extend([9, 0, 0, 0, 0, 0, 0, 0]);
        message.extend([code, 1, b'u', 0]);
        message.extend(serial.to_le_bytes());
        message.extend([7, 1, b's', 0, 24, 0, 0, 0]);
        message.extend(b"org.freedesktop.systemd1\0");
        pad(&mut message, 8);
        message.extend([extra.0, 1, extra.1, 0]);
        message.extend(extra.2);
        let fields = length(message.len() - 16);
        message[12..16].copy_from_slice(&fields);
        pad(&mut message, 8);
        message.extend(body);
        message
    }

    async fn ask(reply: Vec<u8>) -> (Vec<u8>, io::Result<String>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let manager = tokio::spawn(manager(theirs, reply));
        let mut wire = Wire::open(ours, 1000).await.unwrap();
        let serial = wire.call("/o/f", "o.f.M", "StopUnit", &("a.service", "replace")).await.unwrap();
        let message = wire.read().await.unwrap();
        let answer = message.answer_to(serial).unwrap().and_then(|message| message.body::<String>());
        (manager.await.unwrap(), answer)
    }

    #[tokio::test]
    async fn a_call_is_framed_and_its_answer_read_though_its_sender_has_no_bus_name() {
        let (sent, text) = ask(answer(ANSWER, 1, 5, (8, b'g', b"\x01s\0"), b"\x02\0\0\0hi\0")).await;
        assert_eq!(text.unwrap(), "hi");
        let call = sent.as_slice();
        assert_eq!(&call[..12], [b'l', 1, 0, 1, 28, 0, 0, 0, 1, 0, 0, 0]);
        assert!(call.windows(6).any(|window| window == b"\x01g\0\x02ss"), "{call:?}");
        assert!(call.ends_with(b"\x09\0\0\0a.service\0\0\0\x07\0\0\0replace\0"), "{call:?}");
        assert_eq!((call.len() - 28) % 8, 0);
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_with_its_words() {
        let (_, text) = ask(answer(ERROR, 1, 5, (4, b's', b"\x03\0\0\0a.b\0"), b"\x02\0\0\0no\0")).await;
        assert_eq!(text.unwrap_err().to_string(), "no (a.b)");
    }

    #[test]
    fn a_damaged_header_is_an_error_and_no_panic() {
        for fields in [&[3, 1, b's', 0, 200, 0, 0, 0, b'x'][..], &[3, 1], &[8, 1, b'g', 0, 3], &[3, 1, b's', 0, 255, 255, 255, 255]] {
            let _ = read_fields(fields, Message::default());
        }
        assert!(read_fields(&[3, 1, b's', 0, 200, 0, 0, 0, b'x'], Message::default()).is_none());
    }
}
