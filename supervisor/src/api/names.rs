//! The names inside a spec: overrides and `after` must name nodes that the spec makes.

use crate::model::{DevnetSpec, Violation};
use std::collections::BTreeSet;

/// Roles whose nodes are numbered. How many drivers there are is the plugin's to say, so any index passes for them.
const NUMBERED: [&str; 3] = ["validator", "fullnode", "driver"];

/// Names that nothing bears, in the order of the document. The counts of `spec` must be within bounds already.
pub(super) fn check_references(spec: &DevnetSpec) -> Vec<Violation> {
    let mut faults = Vec::new();
    for (i, node) in spec.nodes.iter().enumerate() {
        let field = format!("spec.nodes[{i}].name");
        if spec.services.iter().any(|service| service.name == node.name) {
            faults.push(Violation::new(field, format!("`{}` is a service: set its fields in spec.services", node.name)));
        } else if !makes(spec, &node.name) {
            faults.push(unknown(spec, field, &node.name, false));
        }
    }
    for (i, service) in spec.services.iter().enumerate() {
        if numbered(&service.name).is_some() {
            faults
                .push(Violation::new(format!("spec.services[{i}].name"), format!("`{}` is the name of a chain node; choose another", service.name)));
        }
        for (j, after) in service.after.iter().enumerate() {
            let field = format!("spec.services[{i}].after[{j}]");
            if *after == service.name {
                faults.push(Violation::new(field, "a service cannot wait for itself"));
            } else if !makes(spec, after) && !spec.services.iter().any(|other| other.name == *after) {
                faults.push(unknown(spec, field, after, true));
            }
        }
    }
    if faults.is_empty()
        && let Some(waiting) = circle(spec)
    {
        faults.push(Violation::new("spec.services", format!("wait for each other in a circle: {}", waiting.join(", "))));
    }
    faults
}

/// Whether the chain itself has a node of this short name.
pub(super) fn makes(spec: &DevnetSpec, name: &str) -> bool {
    match numbered(name) {
        Some(("validator", index)) => index < spec.validators(),
        Some(("fullnode", index)) => index < spec.full_nodes,
        Some((_, _)) => true,
        None => false,
    }
}

/// `validator-3` -> (validator, 3). `validator-03` is no such name.
fn numbered(name: &str) -> Option<(&str, u32)> {
    let (role, index) = name.rsplit_once('-')?;
    let number: u32 = index.parse().ok()?;
    (NUMBERED.contains(&role) && number.to_string() == index).then_some((role, number))
}

fn unknown(spec: &DevnetSpec, field: String, name: &str, with_services: bool) -> Violation {
    let chain = (0..spec.validators()).map(|i| format!("validator-{i}")).chain((0..spec.full_nodes).map(|i| format!("fullnode-{i}")));
    let services = spec.services.iter().filter(|_| with_services).map(|service| service.name.clone());
    let known: Vec<String> = chain.chain(services).collect();
    let counts = format!("{} validators and {} full nodes, counted from 0", spec.validators(), spec.full_nodes);
    Violation {
        suggestion: super::nearest(name, known.iter().map(String::as_str)),
        ..Violation::new(field, format!("`{name}` is no node of this devnet, which has {counts}"))
    }
}

/// Services that can never start because they wait for each other; chain nodes wait for none.
fn circle(spec: &DevnetSpec) -> Option<Vec<&str>> {
    let mut left: BTreeSet<&str> = spec.services.iter().map(|service| service.name.as_str()).collect();
    loop {
        let free: Vec<&str> = spec
            .services
            .iter()
            .filter(|service| left.contains(service.name.as_str()) && service.after.iter().all(|after| !left.contains(after.as_str())))
            .map(|service| service.name.as_str())
            .collect();
        if free.is_empty() {
            return (!left.is_empty()).then(|| left.into_iter().collect());
        }
        free.iter().for_each(|name| {
            left.remove(name);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeOverride, ServiceSpec};

    fn check(nodes: &[&str], services: &[(&str, &[&str])], expect: &[(&str, Option<&str>)]) {
        let spec = DevnetSpec {
            plugin: "cosmos".into(),
            validators: Some(4),
            full_nodes: 1,
            nodes: nodes.iter().map(|name| NodeOverride { name: (*name).into(), ..NodeOverride::default() }).collect(),
            services: services
                .iter()
                .map(|(name, after)| ServiceSpec {
                    name: (*name).into(),
                    after: after.iter().map(|s| (*s).into()).collect(),
                    ..ServiceSpec::default()
                })
                .collect(),
            ..DevnetSpec::default()
        };
        let found = check_references(&spec);
        let found: Vec<_> = found.iter().map(|violation| (violation.field.as_str(), violation.suggestion.as_deref())).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn overrides_must_name_nodes_that_the_spec_makes() {
        check(&["validator-3", "fullnode-0", "driver-7"], &[], &[]);
        check(&["validator-4"], &[], &[("spec.nodes[0].name", Some("validator-0"))]);
        check(&["valdator-1"], &[], &[("spec.nodes[0].name", Some("validator-1"))]);
        check(&["fullnode-1"], &[], &[("spec.nodes[0].name", Some("fullnode-0"))]);
        check(&["validator-01"], &[], &[("spec.nodes[0].name", Some("validator-0"))]);
        check(&["relayer"], &[("relayer", &[])], &[("spec.nodes[0].name", None)]);
    }

    #[test]
    fn services_wait_for_nodes_and_services_that_exist() {
        check(&[], &[("relayer", &["validator-0", "db"]), ("db", &[])], &[]);
        check(&[], &[("relayer", &["validatr-0"])], &[("spec.services[0].after[0]", Some("validator-0"))]);
        check(&[], &[("relayer", &["relayer"])], &[("spec.services[0].after[0]", None)]);
        check(&[], &[("validator-9", &[])], &[("spec.services[0].name", None)]);
    }

    #[test]
    fn a_circle_of_waiting_services_is_refused() {
        check(&[], &[("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("d", &[])], &[("spec.services", None)]);
    }
}
