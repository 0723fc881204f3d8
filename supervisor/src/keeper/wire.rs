//! What daemon and keeper say to each other: one packet per message, with at most one descriptor.
//!
//! ```text
//! byte 0     byte 1   the rest
//! VERSION    Word     a name, a prefix of names, or (Welcome) the keeper's pid
//! ```
//! A packet arrives whole or not at all, so a damaged one is passed over and harms no other.

use nix::unistd::geteuid;
use rustix::{
    io::{Errno, retry_on_intr},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, recvmsg, sendmsg, socket_with, sockopt,
    },
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

const VERSION: u8 = 1;
/// Bytes of a name.
pub(super) const MAX_NAME: usize = 250;
/// How long either side waits for the other: only one that hangs takes longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
const BACKLOG: i32 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Asks who is there; answered by Welcome.
    Hello = 1,
    Welcome,
    /// Hold this descriptor under this name, instead of what was there.
    Put,
    /// Close what has this name.
    Drop,
    /// Answered by an Item with its descriptor for each name with this prefix, then End.
    Get,
    /// As Get, without the descriptors.
    List,
    Item,
    End,
}

impl Word {
    const ALL: [Self; 8] = [Self::Hello, Self::Welcome, Self::Put, Self::Drop, Self::Get, Self::List, Self::Item, Self::End];
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) word: Word,
    pub(super) name: String,
    pub(super) fd: Option<OwnedFd>,
}

#[derive(Debug)]
pub(super) enum Received {
    Message(Message),
    /// Not in our language, or it lost its descriptor on the way.
    Damaged,
    /// The other side is gone.
    Closed,
}

/// Without the descriptor a packet is not sent, with a name that is too long neither.
pub(super) fn send(line: &OwnedFd, word: Word, name: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    if name.len() > MAX_NAME {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a name of {} bytes, and at most {MAX_NAME} fit", name.len())));
    }
    let head = [VERSION, word as u8];
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let parts = [IoSlice::new(&head), IoSlice::new(name.as_bytes())];
    retry_on_intr(|| sendmsg(line, &parts, &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// The next packet. An error is the line's, as when nothing comes in time.
pub(super) fn receive(line: &OwnedFd) -> io::Result<Received> {
    let mut bytes = [0; 2 + MAX_NAME + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| recvmsg(line, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC))?;
    // Whatever came along is ours to close, also when the packet is refused.
    let mut fds = control.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fd = fds.by_ref().flatten().next();
    fds.flatten().for_each(drop);
    if received.bytes == 0 {
        return Ok(Received::Closed);
    }
    let cut = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok(parse(&bytes[..received.bytes]).filter(|_| !cut).map_or(Received::Damaged, |(word, name)| Received::Message(Message { word, name, fd })))
}

fn parse(bytes: &[u8]) -> Option<(Word, String)> {
    let [VERSION, word, name @ ..] = bytes else { return None };
    let word = Word::ALL.into_iter().find(|known| *known as u8 == *word)?;
    Some((word, std::str::from_utf8(name).ok()?.to_owned()))
}

/// Per user and home, in the abstract namespace: it goes with the last descriptor, and no home is too deep for it.
pub(super) fn address(home_hash: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new_abstract_name(format!("devnetd-keeper-{}-{home_hash}", geteuid()).as_bytes())?)
}

pub(super) fn listen_on(address: &SocketAddrUnix) -> io::Result<OwnedFd> {
    let listener = new_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    bind(&listener, address)?;
    listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// None when nobody listens.
pub(super) fn call(address: &SocketAddrUnix) -> io::Result<Option<OwnedFd>> {
    let line = new_socket(SocketFlags::CLOEXEC)?;
    set_patience(&line)?;
    match connect(&line, address) {
        Ok(()) => Ok(Some(line)),
        Err(Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn set_patience(line: &OwnedFd) -> io::Result<()> {
    sockopt::set_socket_timeout(line, sockopt::Timeout::Recv, Some(PATIENCE))?;
    Ok(sockopt::set_socket_timeout(line, sockopt::Timeout::Send, Some(PATIENCE))?)
}

/// Who opened the other end.
pub(super) fn peer_uid(line: impl AsFd) -> io::Result<u32> {
    Ok(sockopt::socket_peercred(line)?.uid.as_raw())
}

fn new_socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_either_a_message_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some((word, name)) = parse(&bytes) {
                prop_assert_eq!(&bytes[2..], name.as_bytes());
                prop_assert_eq!(bytes[..2].to_vec(), vec![VERSION, word as u8]);
            }
        }
    }

    #[test]
    fn each_word_reads_as_it_was_written() {
        for word in Word::ALL {
            assert_eq!(parse(&[&[VERSION, word as u8], b"a/b".as_slice()].concat()), Some((word, "a/b".to_owned())));
        }
        assert_eq!(parse(&[VERSION, 99]), None);
        assert_eq!(parse(&[VERSION + 1, 1]), None);
        assert_eq!(parse(&[VERSION, 3, 0xff]), None);
        assert_eq!(parse(&[]), None);
    }
}
