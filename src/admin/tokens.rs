//! One-time tokens.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use otter_protocol::{Grant, Token};

use super::{Admin, Named, Wanted, ask, device_from};
use crate::failure::Failure;
use crate::shapes::{TokenIssued, TokenWanted, TokensRevoked};

pub(super) async fn issue(
    State(admin): State<Arc<Admin>>,
    Wanted(wanted): Wanted<TokenWanted>,
) -> Result<Json<TokenIssued>, Failure> {
    let device = device_from(&wanted.udid)?;
    let grant = Grant {
        release: None,
        // Whoever issues a token by hand wants the image to be sent.
        forced: true,
        unused: admin.core.token_unused,
        used: admin.core.token_used,
        transfer: admin.core.transfer_timeout,
    };
    let issued = ask(&admin, move |admin| Ok(admin.operator.issue_token(device, &grant)?)).await?;
    let ott = String::from_utf8_lossy(&issued.token.text()).into_owned();
    Ok(Json(TokenIssued {
        path: format!("/device/firmware?ott={ott}"),
        ott,
        expires: issued.expires,
    }))
}

pub(super) async fn revoke(
    State(admin): State<Arc<Admin>>,
    Named(ott): Named,
) -> Result<Json<TokensRevoked>, Failure> {
    let Some(token) = Token::parse(ott.as_bytes()) else {
        return Err(Failure::usage("a token is 64 lower-case hexadecimal digits"));
    };
    ask(&admin, move |admin| Ok(admin.operator.revoke_token(&token)?)).await?;
    Ok(Json(TokensRevoked { revoked: 1 }))
}

pub(super) async fn revoke_all(
    State(admin): State<Arc<Admin>>,
    Named(udid): Named,
) -> Result<Json<TokensRevoked>, Failure> {
    let device = device_from(&udid)?;
    let revoked = ask(&admin, move |admin| Ok(admin.operator.revoke_tokens(device)?)).await?;
    Ok(Json(TokensRevoked { revoked }))
}
