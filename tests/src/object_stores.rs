//! Object stores on this machine: servers that speak S3 and Azure's blob storage, each with one bucket.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::http;
use crate::processes::free_ports;
use crate::tools::{azurite, cache, finish, python_with_moto};

/// The bucket, or the container.
pub const BUCKET: &str = "archive";
/// How long a server may take to start.
const READY: Duration = Duration::from_secs(60);
/// The account that Azurite has, and its key, which is known to all.
const AZURITE_ACCOUNT: &str = "devstoreaccount1";
const AZURITE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// Makes a container, which takes a request that is signed.
const MAKE_CONTAINER: &str = r#"
const [port, account, key, container] = process.argv.slice(1);
const date = new Date().toUTCString(), version = "2021-12-02";
const text = ["PUT", "", "", "", "", "", "", "", "", "", "", "", "x-ms-date:" + date, "x-ms-version:" + version,
  `/${account}/${account}/${container}`, "restype:container"].join("\n");
const signature = require("crypto").createHmac("sha256", Buffer.from(key, "base64")).update(text, "utf8").digest("base64");
fetch(`http://127.0.0.1:${port}/${account}/${container}?restype=container`, { method: "PUT", headers: {
  "x-ms-date": date, "x-ms-version": version, Authorization: `SharedKey ${account}:${signature}` } }).then(async (answer) => {
  if (answer.status !== 201) throw new Error(answer.status + " " + (await answer.text()));
});
"#;

/// A server; it ends with this.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub port: u16,
    /// What a client needs in its environment.
    pub environment: Vec<(String, String)>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn named(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    variables.iter().map(owned).collect()
}

impl Server {
    fn start(command: &mut Command, port: u16, environment: Vec<(String, String)>) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        Ok(Self {
            child,
            port,
            environment,
        })
    }

    async fn ready(&self) -> Result<()> {
        let limit = Instant::now() + READY;
        while http::request(self.port, "GET", "/", &[]).await.is_err() {
            ensure!(
                Instant::now() < limit,
                "the object store on port {} does not answer",
                self.port
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// One that speaks S3; None: there is none.
    pub async fn s3() -> Result<Option<Self>> {
        let Some(python) = python_with_moto(&cache()?) else {
            return Ok(None);
        };
        let port = free_ports(1)[0];
        let endpoint = format!("http://127.0.0.1:{port}");
        let environment = named(&[
            ("AWS_ENDPOINT", &endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ]);
        let mut command = Command::new(python);
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        let server = Self::start(&mut command, port, environment)?;
        server.ready().await?;
        let (status, ..) = http::request(port, "PUT", &format!("/{BUCKET}"), &[]).await?;
        ensure!(status == 200, "the bucket was not made: {status}");
        Ok(Some(server))
    }

    /// One that speaks as Azure's blob storage, with its files in this folder; None: there is none.
    pub async fn azure(folder: &Path) -> Result<Option<Self>> {
        let Some(program) = azurite(&cache()?) else {
            return Ok(None);
        };
        let port = free_ports(1)[0];
        let endpoint = format!("http://127.0.0.1:{port}/{AZURITE_ACCOUNT}");
        let environment = named(&[
            ("AZURE_STORAGE_ACCOUNT_NAME", AZURITE_ACCOUNT),
            ("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY),
            ("AZURE_STORAGE_ENDPOINT", &endpoint),
            ("AZURE_ALLOW_HTTP", "true"),
        ]);
        let mut command = Command::new(program);
        command
            .args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"])
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--location"])
            .arg(folder);
        let server = Self::start(&mut command, port, environment)?;
        server.ready().await?;
        let script = [
            "-e",
            MAKE_CONTAINER,
            &port.to_string(),
            AZURITE_ACCOUNT,
            AZURITE_KEY,
            BUCKET,
        ];
        finish(Command::new("node").args(script))?;
        Ok(Some(server))
    }

    /// The keys of an S3 bucket's objects that begin like this, a thousand at most.
    pub async fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let path = format!("/{BUCKET}?list-type=2&prefix={}", prefix.replace('/', "%2F"));
        let (status, _, body) = http::request(self.port, "GET", &path, &[]).await?;
        ensure!(status == 200, "{status}");
        let text = String::from_utf8(body)?;
        let keys = text
            .split("<Key>")
            .skip(1)
            .filter_map(|rest| rest.split("</Key>").next());
        Ok(keys.map(str::to_owned).collect())
    }

    /// Changes the last byte of an object of an S3 bucket.
    pub async fn bend(&self, key: &str) -> Result<()> {
        // moto wants it signed, and does not look at the signature.
        let path = format!("/{BUCKET}/{key}?Signature=none");
        let (status, _, mut body) = http::request(self.port, "GET", &path, &[]).await?;
        ensure!(status == 200, "{key}: {status}");
        *body.last_mut().context("it is empty")? ^= 1;
        let (status, ..) = http::request(self.port, "PUT", &path, &body).await?;
        ensure!(status == 200, "{key}: {status}");
        Ok(())
    }
}
