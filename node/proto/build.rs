//! Generates the gRPC code with protox, so that nobody needs protoc.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/volt/v1/control.proto", "proto/volt/v1/peer.proto"];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".volt.v1")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
