//! dockerd's way in and out: the command line, the runtime, the exit status.

use std::process::ExitCode;

use dockerd::boot;
use dockerd::options::{self, Cli, Parsed, file};
use dockerd::settings::Settings;
use listeners::Activated;

#[global_allocator]
static HEAP: profiles::Heap = profiles::Heap::new();

fn main() -> ExitCode {
    // Before any thread: it takes variables out of the environment.
    let activated = Activated::from_env();
    let cli = match options::parse(std::env::args_os()) {
        Parsed::Run(cli) => cli,
        Parsed::Print(text) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Parsed::Refuse(text) => {
            eprintln!("{text}");
            return ExitCode::FAILURE;
        }
    };
    if cli.version {
        println!(
            "Dormouse version {}, build {}",
            dockerd::VERSION,
            option_env!("DORMOUSE_COMMIT").unwrap_or("unknown")
        );
        return ExitCode::SUCCESS;
    }
    match run(*cli, activated) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli, activated: Activated) -> anyhow::Result<()> {
    let settings = Settings::new(file::merge(&cli)?)?;
    if cli.validate {
        println!("configuration OK");
        return Ok(());
    }
    if settings.debug {
        profiles::record_heap();
    }
    // Few threads: most of what happens here is waiting, and each costs memory of its own.
    let workers = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("dockerd")
        .thread_keep_alive(std::time::Duration::from_secs(5))
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(boot::run(cli, settings, activated));
    // A blocking task that hangs (a read of a dead network file system, say) does not keep us.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}
