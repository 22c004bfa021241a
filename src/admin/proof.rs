//! Looks whether the admin port can be had before a worker runs.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use super::ask::ask;
use crate::proof::Proof;

/// Whether it is free, or a worker answers there.
pub async fn prove(listen: SocketAddr) -> Proof {
    let what = "admin port";
    match TcpListener::bind(listen) {
        Ok(_) => Proof::ok(what, format!("{listen} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => match ask(listen, true).await {
            Ok(_) => Proof::ok(what, format!("a worker answers at {listen} already")),
            Err(_) => Proof::wrong(what, format!("{listen} is in use by another program; set another `admin.listen`")),
        },
        Err(error) => Proof::wrong(what, format!("{listen} can't be had: {error}; set another `admin.listen`")),
    }
}
