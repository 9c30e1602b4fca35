//! Runs steps in order, says how long each took, and collects the evidence when one fails.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use crate::command::kubectl;

/// What has happened so far. A step builds on those before it, so after a failure the rest is not tried.
#[derive(Default)]
pub struct Suite {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Suite {
    /// Runs one step, unless an earlier one failed.
    pub async fn step(&mut self, promise: &str, work: impl Future<Output = anyhow::Result<String>>) {
        if self.failed > 0 {
            self.skipped += 1;
            println!("skip  {promise}");
            return;
        }
        let started = Instant::now();
        let outcome = work.await;
        let seconds = started.elapsed().as_secs_f64();
        match outcome {
            Ok(remark) => {
                self.passed += 1;
                let remark = if remark.is_empty() {
                    remark
                } else {
                    format!(": {remark}")
                };
                println!("ok    {promise} ({seconds:.1} s){remark}");
            }
            Err(error) => {
                self.failed += 1;
                println!("FAIL  {promise} ({seconds:.1} s): {error:#}");
                evidence().await;
            }
        }
        let _ = std::io::stdout().flush();
    }

    /// The last line, and the exit code that agrees with it.
    pub async fn finish(self) -> ExitCode {
        let skipped = if self.skipped > 0 {
            format!(", {} not tried", self.skipped)
        } else {
            String::new()
        };
        println!("{} passed, {} failed{skipped}", self.passed, self.failed);
        if self.failed == 0 && self.passed > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// What an engineer would look at first.
async fn evidence() {
    show(&["get", "all,persistentvolumeclaims,leases", "-o", "wide"]).await;
    show(&["get", "voltclusters", "-o", "yaml", "--all-namespaces"]).await;
    show(&["get", "events", "--sort-by=.lastTimestamp"]).await;
    show(&["describe", "pods"]).await;
    let pods = kubectl(&["get", "pods", "-o", "name"]).await.unwrap_or_default();
    for pod in pods.lines() {
        show(&["logs", pod, "--all-containers", "--tail=200"]).await;
        show(&["logs", pod, "--all-containers", "--tail=60", "--previous"]).await;
    }
}

/// An answer that can't be had is no news, except that there is none.
async fn show(question: &[&str]) {
    println!("----- kubectl {}", question.join(" "));
    match kubectl(question).await {
        Ok(answer) => println!("{answer}"),
        Err(error) => println!("({})", error.to_string().lines().last().unwrap_or_default()),
    }
}
