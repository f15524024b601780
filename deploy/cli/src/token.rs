//! `mesh token`: the token alone, so that `$(mesh token)` is one.

use crate::args::Token;
use crate::load::load;
use crate::screen::Screen;
use mesh_local::identity::{DevelopmentIssuer, TokenRequest};
use mesh_protocol::Timestamp;
use std::process::ExitCode;

pub fn run(args: &Token) -> anyhow::Result<ExitCode> {
    let loaded = load(&args.file)?;
    let issuer = DevelopmentIssuer::of(&loaded.mesh, &loaded.base)?;
    let request = TokenRequest {
        sub: args.sub.clone(),
        scope: args.scope.clone(),
        ttl: args.ttl,
        claims: args.claims.iter().cloned().collect(),
    };
    Screen::stdout().line(issuer.issue(&request, Timestamp::now())?)?;
    Ok(ExitCode::SUCCESS)
}
