//! Numbers that the kernel may give to somebody's outgoing connection while their node does not run: told on the node, with the mend.

use super::machine::{Ephemeral, parse_ranges};
use crate::model::{Condition, ConditionStatus, Node, PlannedPort};

pub const PORTS_RESERVED: &str = "PortsReserved";

/// What the node should say; None when all of its numbers are safe. Unknown, not False: nothing is wrong yet, and it must not be
/// told as the cause of what is. Parked ones are; UDP is not looked at, as nowhere else.
pub(super) fn condition(node: &Node, ports: &[PlannedPort], ephemeral: &Ephemeral) -> Option<Condition> {
    let name = &node.metadata.name;
    let numbered = ports.iter().filter(|port| !port.udp && !port.park).filter_map(|port| Some((*node.spec.ports.get(&port.name)?, &port.name)));
    let mut lendable: Vec<(u16, &String)> = numbered.filter(|(number, _)| ephemeral.may_give_away(*number)).collect();
    if lendable.is_empty() {
        return None;
    }
    lendable.sort_unstable();
    let (low, high) = (ephemeral.range.start(), ephemeral.range.end());
    let words: Vec<String> = lendable.iter().map(|(number, port)| format!("{number} ({port})")).collect();
    let message = format!("outgoing connections get numbers of {low}-{high}: while {name} does not run, one may have {}", words.join(", "));
    let reserved = Some(ephemeral.reserved.trim()).filter(|text| !text.is_empty()).map(str::to_owned);
    let list: Vec<String> = reserved.into_iter().chain(lendable.iter().map(|(number, _)| number.to_string())).collect();
    let remedy = format!("take numbers outside that range, or: sudo sysctl net.ipv4.ip_local_reserved_ports={}", list.join(","));
    let condition = Condition::new(PORTS_RESERVED, ConditionStatus::Unknown, "EphemeralPort", message);
    Some(Condition { remedy: Some(remedy), ..condition })
}

impl Ephemeral {
    /// True for a number that an outgoing connection may get.
    pub(super) fn may_give_away(&self, port: u16) -> bool {
        self.range.contains(&port) && !parse_ranges(&self.reserved).iter().any(|range| range.contains(&port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Meta, NodeSpec, NodeStatus};

    fn check(ports: &[(&str, u16)], reserved: &str, expect: Option<(&str, &str)>) {
        let spec = NodeSpec { ports: ports.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect(), ..NodeSpec::default() };
        let node = Node { metadata: Meta { name: "net/web".into(), ..Meta::default() }, spec, status: NodeStatus::default() };
        let port = |name: &str| PlannedPort { name: name.to_owned(), udp: name == "udp", park: name == "parked", ..PlannedPort::default() };
        let planned: Vec<PlannedPort> = ports.iter().map(|(name, _)| port(name)).collect();
        let told = condition(&node, &planned, &Ephemeral { range: 32_768..=60_999, reserved: reserved.to_owned() });
        let told = told.map(|told| (told.message, told.remedy.unwrap_or_default()));
        assert_eq!(told, expect.map(|(message, remedy)| (message.to_owned(), remedy.to_owned())));
    }

    #[test]
    fn a_number_in_the_ephemeral_range_is_told_with_the_range_and_the_mend_that_keeps_what_is_reserved() {
        check(&[("web", 8080), ("rpc", 26_657), ("high", 61_000)], "", None);
        check(&[("udp", 40_000), ("parked", 40_001)], "", None);
        check(&[("web", 40_000)], "39999-40000\n", None);
        let message = "outgoing connections get numbers of 32768-60999: while net/web does not run, one may have 32768 (rpc), 40000 (web)";
        let mend = "take numbers outside that range, or: sudo sysctl net.ipv4.ip_local_reserved_ports=";
        check(&[("web", 40_000), ("rpc", 32_768), ("low", 80)], "\n", Some((message, &format!("{mend}32768,40000"))));
        check(&[("web", 40_000), ("rpc", 32_768)], "8080,9148-9150\n", Some((message, &format!("{mend}8080,9148-9150,32768,40000"))));
    }
}
