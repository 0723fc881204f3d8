//! Events: building them, and telling the story that they make.

mod explain;
mod headline;
mod recorder;

pub use explain::{Explanation, HISTORY_COMPACTED, HISTORY_CUT, explain};
pub use headline::headline;
pub use recorder::{EventBuilder, Recorder};
