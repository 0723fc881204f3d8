//! Loopback /24 subnets out of 127.64.0.0/10, and where the search for a free one begins.

use sha2::{Digest, Sha256};
use std::{fmt, net::Ipv4Addr};

/// Subnets in 127.64.0.0/10. It is clear of 127.0.0.53 (resolved) and 127.0.1.1 (Debian's own host name).
pub(super) const SUBNETS: u32 = 64 * 256;

/// `127.64.3`: the first three bytes of a /24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet(u8, u8);

impl Subnet {
    /// The nth of the `SUBNETS`, counted round.
    pub(super) fn nth(n: u32) -> Self {
        let [_, _, high, low] = (n % SUBNETS).to_be_bytes();
        Self(64 + high, low)
    }
    /// Reads `127.64.3`; None for anything outside 127.64.0.0/10.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::of(format!("{text}.0").parse().ok()?)
    }
    /// The subnet that an address lies in.
    pub(super) fn of(address: Ipv4Addr) -> Option<Self> {
        let [first, second, third, _] = address.octets();
        (first == 127 && (64..128).contains(&second)).then_some(Self(second, third))
    }
    pub(super) fn host(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.0, self.1, number)
    }
    /// `127.64.3.0/24`
    pub(super) fn cidr(self) -> String {
        format!("{self}.0/24")
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "127.{}.{}", self.0, self.1)
    }
}

/// A number that depends on the words alone: homes and devnets begin their searches at different places, each always at its own.
pub(super) fn start(words: &[&str]) -> u32 {
    let digest = Sha256::digest(words.join("\0").as_bytes());
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subnet_lies_in_the_block_and_reads_back() {
        for n in [0, 1, 255, 256, SUBNETS - 1, SUBNETS, u32::MAX] {
            let subnet = Subnet::nth(n);
            assert_eq!(Subnet::parse(&subnet.to_string()), Some(subnet));
        }
        assert_eq!(Subnet::nth(0).to_string(), "127.64.0");
        assert_eq!(Subnet::nth(SUBNETS - 1).cidr(), "127.127.255.0/24");
        assert_eq!(Subnet::parse("127.0.0"), None);
        assert_eq!(Subnet::parse("127.128.0"), None);
    }

    #[test]
    fn the_start_depends_on_each_word() {
        assert_eq!(start(&["a", "b"]), start(&["a", "b"]));
        assert_ne!(start(&["a", "b"]), start(&["ab", ""]));
    }
}
