//! `mesh token`: the token alone, so that `$(mesh token)` is one; with `-o json` its claims as well.

use crate::args::{Output, Token};
use crate::load::load;
use crate::screen::{self, Screen};
use mesh_local::identity::{DevelopmentIssuer, TokenRequest};
use mesh_protocol::Timestamp;
use serde_json::json;
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
    let now = Timestamp::now();
    let token = issuer.issue(&request, now)?;
    Screen::stdout().line(match args.output {
        Output::Text => token,
        Output::Json => {
            let claims = issuer.claims(&request, now);
            screen::json(&json!({"token": token, "claims": claims}))?
        }
    })?;
    Ok(ExitCode::SUCCESS)
}
