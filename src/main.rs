//! The pam-compile program: arguments, the order of the steps, and how results are shown. What is
//! computed is computed in the libraries.
//!
//! [`args`] declares the command line, [`source`] reads models, [`step`] compiles and certifies them,
//! [`gradients`] compares gradients, [`output`] writes files, `commands` holds one file a command, and `report` what a compilation
//! says about itself.

mod args;
mod commands;
mod failure;
mod gradients;
mod output;
mod report;
mod source;
mod step;

use args::{Arguments, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Without a handler the interruption would leave temporary files behind, but nothing worse.
    let handler = ctrlc::set_handler(|| {
        pam_runtime::io::discard_unfinished();
        std::process::exit(130);
    });
    if let Err(e) = handler {
        eprintln!("warning: an interruption may leave temporary files: {e}");
    }
    let result = match arguments.command {
        None => commands::compile::compile(&arguments.compile),
        Some(Command::Audit(a)) => commands::audit::audit(&a),
        Some(Command::Run(a)) => commands::run::run(&a),
        Some(Command::Compare(a)) => commands::compare::compare(&a),
        Some(Command::Diff(a)) => commands::diff::diff(&a),
        Some(Command::Verify(a)) => commands::verify::verify(&a),
        Some(Command::Train(a)) => commands::train::train(&a),
        Some(Command::Ops(a)) => commands::ops::ops(&a),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.code()
        }
    }
}
