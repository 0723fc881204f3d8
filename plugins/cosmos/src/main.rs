//! devnetd plugin `cosmos`, as an executable that devnetd starts.

fn main() -> std::process::ExitCode {
    dvb_plugin_sdk::run(dvb_plugin_cosmos::plugin::Cosmos)
}
