//! What an admin port answers.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The answer to a GET of `/metrics` at that address, head and all.
///
/// # Panics
/// When nobody answers there.
pub async fn scrape(admin: &str) -> String {
    let mut stream = TcpStream::connect(admin).await.expect("the admin port listens");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    answer
}
