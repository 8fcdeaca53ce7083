//! docker-runc: the OCI runtime.

use std::process::ExitCode;

fn main() -> ExitCode {
    runc::commands::main()
}
