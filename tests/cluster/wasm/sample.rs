//! The sample procedures of tests/wasm as modules: compiled once a run of tests, by whichever compiler has the target.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const TARGET: &str = "wasm32-unknown-unknown";

/// rustup's, and Debian's, which has it as a package of its own.
const COMPILERS: [&str; 2] = ["rustc", "/usr/bin/rustc"];

/// The compiled sample.
pub struct Sample {
    folder: PathBuf,
}

impl Sample {
    /// None: nothing here compiles for WebAssembly, and nobody insists (VOLT_REQUIRE_CLIENTS, as for clients).
    pub fn build() -> Result<Option<Self>> {
        let Some(compiler) = COMPILERS.into_iter().find(|compiler| has_target(compiler)) else {
            if std::env::var_os("VOLT_REQUIRE_CLIENTS").is_some() {
                bail!("no compiler for {TARGET}: rustup target add {TARGET}");
            }
            println!("SKIPPED, no compiler for {TARGET}");
            return Ok(None);
        };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("wasm");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasm");
        std::fs::create_dir_all(&folder)?;
        // Not cargo: an older compiler than cargo's own doesn't know all of its flags.
        let compile = |arguments: &[&str], file: &Path| {
            let mut command = Command::new(compiler);
            command.args(["--edition", "2021", "--target", TARGET, "-C", "opt-level=s"]);
            command
                .args(["-C", "panic=abort", "--cap-lints", "allow"])
                .args(arguments);
            let output = command.arg(file).arg("--out-dir").arg(&folder).output()?;
            ensure!(
                output.status.success(),
                "{command:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            Ok(())
        };
        let library = ["--crate-type", "rlib", "--crate-name", "volt_procedure"];
        compile(&library, &source.join("src/lib.rs"))?;
        let library = format!("volt_procedure={}", folder.join("libvolt_procedure.rlib").display());
        for file in std::fs::read_dir(source.join("examples"))? {
            let module = ["--crate-type", "cdylib", "-C", "lto", "--extern", &library];
            compile(&module, &file?.path())?;
        }
        Ok(Some(Self { folder }))
    }

    /// A module as SQL writes it, quoted.
    pub fn literal(&self, name: &str) -> Result<String> {
        let file = self.folder.join(name).with_extension("wasm");
        let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
        let mut digits = "'\\x".to_owned();
        for byte in bytes {
            write!(digits, "{byte:02x}")?;
        }
        Ok(digits + "'")
    }
}

fn has_target(compiler: &str) -> bool {
    let folder = Command::new(compiler)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output();
    folder.is_ok_and(|output| {
        output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
    })
}
