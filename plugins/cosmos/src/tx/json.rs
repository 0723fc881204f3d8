//! The JSON form of messages as the chain's own command line writes it, beside the one that our protobuf library reads: names with
//! underscores, and decimal fractions as such. On the wire a fraction is an integer of 10^-18.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

pub(crate) const PLACES: usize = 18;

/// How the wire holds a decimal fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fraction {
    Text(&'static str),
    Bytes(&'static str),
}

/// Messages with fractions in them, and where.
const FRACTIONS: [(&str, &[Fraction]); 6] = [
    (
        "/cosmos.distribution.v1beta1.MsgUpdateParams",
        &[Fraction::Text("params.community_tax"), Fraction::Text("params.base_proposer_reward"), Fraction::Text("params.bonus_proposer_reward")],
    ),
    (
        "/cosmos.mint.v1beta1.MsgUpdateParams",
        &[
            Fraction::Text("params.inflation_rate_change"),
            Fraction::Text("params.inflation_max"),
            Fraction::Text("params.inflation_min"),
            Fraction::Text("params.goal_bonded"),
        ],
    ),
    (
        "/cosmos.slashing.v1beta1.MsgUpdateParams",
        &[
            Fraction::Bytes("params.min_signed_per_window"),
            Fraction::Bytes("params.slash_fraction_double_sign"),
            Fraction::Bytes("params.slash_fraction_downtime"),
        ],
    ),
    (
        "/cosmos.staking.v1beta1.MsgCreateValidator",
        &[Fraction::Text("commission.rate"), Fraction::Text("commission.max_rate"), Fraction::Text("commission.max_change_rate")],
    ),
    ("/cosmos.staking.v1beta1.MsgEditValidator", &[Fraction::Text("commission_rate")]),
    ("/cosmos.staking.v1beta1.MsgUpdateParams", &[Fraction::Text("params.min_commission_rate")]),
];

/// The fractions of a message.
pub(crate) fn fractions(type_url: &str) -> &'static [Fraction] {
    FRACTIONS.iter().find(|(url, _)| *url == type_url).map_or(&[], |(_, fields)| fields)
}

/// From the form of people to that of the library. The error names the field.
pub(crate) fn to_wire(message: &mut Value, fractions: &[Fraction]) -> Result<(), String> {
    if !fractions.is_empty() {
        underscore(message);
    }
    for fraction in fractions {
        let (Fraction::Text(path) | Fraction::Bytes(path)) = fraction;
        let Some(field) = find(message, path) else { continue };
        let text = match &*field {
            Value::String(text) if !text.is_empty() => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => continue, // not set, or the library tells what is wrong with it
        };
        let scaled = scale(&text).ok_or_else(|| format!("{path}: `{text}` is no decimal fraction with at most {PLACES} places"))?;
        *field = Value::from(if matches!(fraction, Fraction::Text(_)) { scaled } else { STANDARD.encode(scaled) });
    }
    Ok(())
}

/// And back. What is no fraction stays as it is.
pub(crate) fn from_wire(mut message: Value, fractions: &[Fraction]) -> Value {
    underscore(&mut message);
    for fraction in fractions {
        let (Fraction::Text(path) | Fraction::Bytes(path)) = fraction;
        let Some(field) = find(&mut message, path) else { continue };
        let Some(text) = field.as_str() else { continue };
        let digits = match fraction {
            Fraction::Text(_) => Some(text.to_owned()),
            Fraction::Bytes(_) => STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok()),
        };
        if let Some(unscaled) = digits.and_then(|digits| unscale(&digits)) {
            *field = Value::from(unscaled);
        }
    }
    message
}

/// A contract's own message is bytes on the wire, and JSON as people write it.
pub(crate) fn document_to_wire(field: &mut Value) {
    if field.is_object() {
        *field = Value::from(STANDARD.encode(field.to_string()));
    }
}

/// And back, where the same bytes come of it again.
pub(crate) fn document_from_wire(field: &mut Value) {
    let bytes = field.as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    if let Ok(document @ Value::Object(_)) = serde_json::from_slice::<Value>(&bytes)
        && document.to_string().as_bytes() == bytes
    {
        *field = document;
    }
}

fn find<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').try_fold(value, |value, name| value.get_mut(name))
}

/// `0.2` to `200000000000000000`.
pub(crate) fn scale(text: &str) -> Option<String> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(part) || part.len() > PLACES {
        return None;
    }
    let all = format!("{whole}{part:0<PLACES$}");
    let all = all.trim_start_matches('0');
    Some(if all.is_empty() { "0".to_owned() } else { format!("{sign}{all}") })
}

/// And back.
pub(crate) fn unscale(digits: &str) -> Option<String> {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let all = format!("{digits:0>width$}", width = PLACES + 1);
    let (whole, part) = all.split_at(all.len() - PLACES);
    Some(format!("{sign}{whole}.{part}"))
}

/// The library writes `minDeposit` and reads that and `min_deposit`; chains write and read the latter.
fn underscore(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let renamed = std::mem::take(fields).into_iter().map(|(name, mut value)| {
                underscore(&mut value);
                (snake(&name), value)
            });
            *fields = renamed.collect();
        }
        Value::Array(items) => items.iter_mut().for_each(underscore),
        _ => {}
    }
}

fn snake(name: &str) -> String {
    name.chars().flat_map(|c| c.is_ascii_uppercase().then_some('_').into_iter().chain([c.to_ascii_lowercase()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fractions_are_scaled_both_ways() {
        for (text, scaled, back) in [
            ("0.2", "200000000000000000", "0.200000000000000000"),
            ("1", "1000000000000000000", "1.000000000000000000"),
            ("0", "0", "0.000000000000000000"),
            ("-0.000000000000000001", "-1", "-0.000000000000000001"),
        ] {
            assert_eq!(scale(text).as_deref(), Some(scaled));
            assert_eq!(unscale(scaled).as_deref(), Some(back));
        }
        for bad in ["", ".", ".5", "1e3", "0.0000000000000000001", "0,2", "x"] {
            assert_eq!(scale(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_message_reads_as_the_chain_writes_it_and_comes_back() {
        let fractions = fractions("/cosmos.slashing.v1beta1.MsgUpdateParams");
        let mut people = json!({"params": {"signed_blocks_window": "20", "min_signed_per_window": "0.500000000000000000"}});
        let before = people.clone();
        to_wire(&mut people, fractions).unwrap();
        assert_eq!(people["params"]["min_signed_per_window"], STANDARD.encode("500000000000000000"));
        let library = json!({"params": {"signedBlocksWindow": "20", "minSignedPerWindow": people["params"]["min_signed_per_window"]}});
        assert_eq!(from_wire(library, fractions), before);
        let mut bad = json!({"params": {"min_signed_per_window": "half"}});
        assert!(to_wire(&mut bad, fractions).unwrap_err().starts_with("params.min_signed_per_window: `half`"));
    }
}
