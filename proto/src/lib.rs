//! Generated types: the client API (`devnet::v1`) and the plugin protocol (`plugin::v1`); no logic beyond their JSON form.
//!
//! Messages of the client API derive serde with camelCase names, so a message and the stored object have one JSON shape.
//! Deserializing refuses unknown fields. An absent `optional` field serializes as null: callers that print drop nulls.

#[allow(unreachable_pub, clippy::all)]
pub mod devnet {
    pub mod v1 {
        tonic::include_proto!("devnet.v1");
    }
}

#[allow(unreachable_pub, clippy::all)]
pub mod plugin {
    pub mod v1 {
        tonic::include_proto!("plugin.v1");

        /// The version of the plugin protocol that this crate describes.
        pub const API_VERSION: u32 = 1;
    }
}

pub mod endpoint;
pub mod frames;
pub mod json_text;
pub mod variables;
pub mod words;
