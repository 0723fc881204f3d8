//! What the daemon talks about: objects, their specs and statuses, ids, quantities, faults. Values only: no I/O, no clock.
//!
//! The JSON form of each type here is the JSON form of the message of the same name in `devnet.v1`; `api::convert` rests on it.

mod condition;
mod devnet;
mod event;
mod export;
mod fault;
mod hex;
mod ids;
mod json;
mod launch;
mod lease;
mod meta;
mod node;
mod object;
mod plan;
mod quantity;
mod spec;
mod time;
mod transaction;
mod upgrade;
mod validate;

pub use condition::{Condition, ConditionStatus, Conditions};
pub use devnet::{Account, BinaryStatus, Devnet, DevnetPhase, DevnetStatus, PastUpgrade, SdkChange};
pub use event::{Event, EventType};
pub use export::{CloneReport, Export, ExportPhase, ExportSpec, ExportStatus};
pub use fault::{Fault, FaultCode, Violation};
pub use hex::{hex, unhex};
pub use ids::{EventId, LaunchId, NodeName, Uid};
pub use json::RawJson;
pub use launch::{Exit, ExitClass, Launch, LaunchPhase, LaunchRecord, LaunchStatus, LimitOf, OomKill, Readiness};
pub use lease::{Lease, LeaseSpec, SignMark};
pub use meta::{DEFAULT_NAMESPACE, Meta, Revision};
pub use node::{
    CoreDump, Desired, FROZEN, HealthCheck, LastExit, MemoryPressure, Node, NodePhase, NodeSpec, NodeStatus, Resources, RestartPolicy, RestartRules,
    SERVICE, Usage,
};
pub use object::{Key, Kind, Object};
pub use plan::{PlacedNode, Plan, PlanBody, PlannedNode, PlannedPort};
pub use quantity::{ByteSize, Cpu, QuantityError, Span};
pub use spec::{
    Addresses, BinarySource, CargoSource, DevnetSpec, GenesisSpec, GitSource, GoModule, LogsSpec, Mode, NodeOverride, NpmSource, Operations,
    ReadinessSpec, ResourcesSpec, RestartSpec, ServiceSpec,
};
pub use time::Timestamp;
pub use transaction::{GAS_FACTOR, SignedAttempt, Transaction, TransactionPhase, TransactionSpec, TransactionStatus, TxEvent};
pub use upgrade::{Before, HaltProof, SavedState, Upgrade, UpgradeNotes, UpgradePhase, UpgradeSpec, UpgradeStatus, VERIFY_BLOCKS, VerifiedBlock};
pub use validate::{MAX_NODES, MIN_LOG, check_name, validate_devnet};

/// The API version that every object carries.
pub const API_VERSION: &str = "devnet.builder/v1";
