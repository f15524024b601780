//! What a Kong needs to be asked the corpus.

use crate::chains::{self, Chain, MAX_BODY};
use std::net::SocketAddr;
use std::path::Path;

/// Writes kong.yml, `env`, the modules and their `.meta.json` into `directory`.
///
/// # Panics
/// When a file cannot be written.
pub fn write(directory: &Path, chains: &[Chain], upstream: SocketAddr) {
    std::fs::create_dir_all(directory).expect("make the directory");
    let directory = directory
        .canonicalize()
        .expect("the directory's whole path");
    let filters = directory.join("filters");
    std::fs::create_dir_all(&filters).expect("make the directory of the modules");
    for entry in std::fs::read_dir(chains::modules()).expect("read the modules") {
        let entry = entry.expect("read the modules");
        std::fs::copy(entry.path(), filters.join(entry.file_name())).expect("copy a module");
    }
    let yaml = chains::declarative(chains, upstream).to_yaml();
    std::fs::write(directory.join("kong.yml"), yaml.expect("a kong.yml")).expect("write kong.yml");
    std::fs::write(directory.join("env"), environment(&directory)).expect("write env");
}

/// `NAME=value` lines; the paths are those of this machine.
fn environment(directory: &Path) -> String {
    let shown = directory.display();
    let body = MAX_BODY / 1024;
    let lines = [
        "KONG_DATABASE=off".to_owned(),
        format!("KONG_DECLARATIVE_CONFIG={shown}/kong.yml"),
        "KONG_WASM=on".to_owned(),
        format!("KONG_WASM_FILTERS_PATH={shown}/filters"),
        // Without it shared data traps.
        "KONG_NGINX_WASM_SHM_KV=12m".to_owned(),
        // Above the buffer a body lies on disk, where filters cannot read it.
        format!("KONG_NGINX_HTTP_CLIENT_BODY_BUFFER_SIZE={body}k"),
        format!("KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE={body}k"),
        // Cases have heads that nginx would refuse before any filter.
        "KONG_NGINX_HTTP_LARGE_CLIENT_HEADER_BUFFERS=8 64k".to_owned(),
        "KONG_PROXY_LISTEN=127.0.0.1:8000".to_owned(),
    ];
    lines.join("\n") + "\n"
}
