//! The environment variables that tell of a devnet: what `dvbctl env` prints and what services find in their environment.

use std::collections::BTreeMap;

/// What a program next to the devnet wants to know. Empty texts make no variable.
#[derive(Clone, Debug, Default)]
pub struct Surroundings<'a> {
    pub devnet: &'a str,
    pub namespace: &'a str,
    pub chain_id: &'a str,
    pub mnemonic_file: &'a str,
    pub binary: &'a str,
    /// Addresses, in the order of the accounts.
    pub accounts: Vec<&'a str>,
    pub nodes: Vec<Neighbour<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Neighbour<'a> {
    /// `validator-0`.
    pub short: &'a str,
    pub role: &'a str,
    pub index: u32,
    pub home: &'a str,
    /// URL by port name.
    pub endpoints: &'a BTreeMap<String, String>,
}

impl Surroundings<'_> {
    /// In the order in which people read them. The first validator's endpoints, or else the first node's, also have plain names:
    /// `DVB_RPC` beside `DVB_VALIDATOR_0_RPC`.
    pub fn variables(&self) -> Vec<(String, String)> {
        let about = [
            ("DVB_DEVNET", self.devnet),
            ("DVB_NAMESPACE", self.namespace),
            ("DVB_CHAIN_ID", self.chain_id),
            ("DVB_MNEMONIC_FILE", self.mnemonic_file),
            ("DVB_BINARY", self.binary),
        ];
        let about = about.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let validators = self.nodes.iter().filter(|node| node.role == "validator");
        let first = validators.min_by_key(|node| node.index).or_else(|| self.nodes.first());
        let plain = first.into_iter().flat_map(|node| node.endpoints).map(|(port, url)| (format!("DVB_{}", word(port)), url.clone()));
        let nodes = self.nodes.iter().flat_map(Neighbour::variables);
        let accounts = self.accounts.iter().enumerate().map(|(i, address)| (format!("DVB_ACCOUNT_{i}"), (*address).to_owned()));
        about.chain(plain).chain(nodes).chain(accounts).filter(|(_, value)| !value.is_empty()).collect()
    }
}

impl Neighbour<'_> {
    fn variables(&self) -> Vec<(String, String)> {
        let me = word(self.short);
        let endpoints = self.endpoints.iter().map(|(port, url)| (format!("DVB_{me}_{}", word(port)), url.clone()));
        endpoints.chain([(format!("DVB_{me}_HOME"), self.home.to_owned())]).collect()
    }
}

/// `validator-0` as a part of a variable's name: VALIDATOR_0.
fn word(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_words_of_a_shell() {
        assert_eq!([word("validator-0"), word("json.rpc")], ["VALIDATOR_0", "JSON_RPC"]);
    }

    #[test]
    fn the_first_validator_has_the_plain_names_whatever_comes_before_it() {
        let url = |host: &str| BTreeMap::from([("rpc".to_owned(), format!("http://{host}:1"))]);
        let (faucet, one, zero) = (url("faucet"), url("one"), url("zero"));
        let node = |short, role, index, endpoints| Neighbour { short, role, index, endpoints, home: "/h" };
        let nodes =
            vec![node("faucet", "service", 0, &faucet), node("validator-1", "validator", 1, &one), node("validator-0", "validator", 0, &zero)];
        let mut surroundings = Surroundings { devnet: "d", nodes, accounts: vec!["addr"], ..Surroundings::default() };
        let made = surroundings.variables();
        let value = |name: &str| made.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(value("DVB_RPC"), Some("http://zero:1"));
        assert_eq!(value("DVB_VALIDATOR_1_RPC"), Some("http://one:1"));
        assert_eq!(value("DVB_FAUCET_RPC"), Some("http://faucet:1"));
        assert_eq!(value("DVB_VALIDATOR_0_HOME"), Some("/h"));
        assert_eq!(value("DVB_ACCOUNT_0"), Some("addr"));
        assert_eq!(value("DVB_CHAIN_ID"), None, "there is none");
        surroundings.nodes.truncate(1);
        assert!(surroundings.variables().contains(&("DVB_RPC".into(), "http://faucet:1".into())), "without a chain it is the first service");
    }
}
