//! One question to the admin port of a running process: plain HTTP/1.1, bounded in time and size. Not for anything else on the web.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::failure::Failure;

/// Far more than a page of ours has; what is longer is none.
const MOST: u64 = 8 << 20;
/// The first byte of a TLS alert: what a server with TLS answers to somebody without.
const ALERT: u8 = 21;

/// What is asked: a method, a page with its query, and what is sent along.
pub(super) struct Question<'a> {
    pub(super) method: &'static str,
    pub(super) path: &'a str,
    pub(super) body: &'a str,
}

impl<'a> Question<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self {
            method: "GET",
            path,
            body: "",
        }
    }
}

/// The body of the answer at `address` (`HOST:PORT`).
pub(super) async fn ask(address: &str, question: &Question<'_>, timeout: Duration) -> Result<String, Failure> {
    let asked = tokio::time::timeout(timeout, exchange(address, question)).await;
    let answer = match asked {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            return Err(Failure::new(format!("nobody answers at {address}"))
                .because(&error)
                .advice(
                    "give the admin address of a running process: a service's own port + 2000, or what its --admin-listen says",
                ));
        }
        Err(_) => {
            return Err(Failure::new(format!("{address} did not answer within {timeout:?}"))
                .advice("look at its log, or pass a longer --timeout"));
        }
    };
    read(address, question.path, &answer)
}

async fn exchange(address: &str, question: &Question<'_>) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let Question { method, path, body } = question;
    let length = match *method {
        "GET" => String::new(),
        _ => format!("content-length: {}\r\n", body.len()),
    };
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n{length}connection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// The body of an answer that is OK and whole.
fn read(address: &str, path: &str, answer: &[u8]) -> Result<String, Failure> {
    let strange = || {
        Failure::new(format!("{address} is no admin port"))
            .advice("give a service's own port + 2000, or what its --admin-listen says")
    };
    if answer.first() == Some(&ALERT) {
        return Err(Failure::new(format!("{address} speaks TLS, and this command does not"))
            .advice(format!("read it with `curl --cacert FILE https://{address}{path}`")));
    }
    let text = std::str::from_utf8(answer).map_err(|_| strange())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(strange)?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    match status {
        Some("200") if length.is_none_or(|length| length == body.len()) => Ok(body.to_owned()),
        Some("200") => Err(Failure::new(format!("{address} has broken off its answer")).advice("ask again")),
        Some("404") => Err(Failure::new(format!("{address} has no page {path}"))
            .advice("ask a process that calls others, such as a user service")),
        // It says what is wrong with the question.
        Some("400" | "413") => Err(Failure::usage(format!("{address} refuses")).why(body.trim())),
        Some("403") => Err(Failure::new(format!("{address} refuses")).why(body.trim()).advice(
            "run this where that process runs; in a container: docker compose exec SERVICE tessera log-level 127.0.0.1:PORT FILTER",
        )),
        Some(status) if head.starts_with("HTTP/") => Err(Failure::new(format!("{address} answered {status}"))),
        _ => Err(strange()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: &[u8], expected: Result<&str, &str>) {
        match (read("h:1", "/lb", answer), expected) {
            (Ok(body), Ok(expected)) => assert_eq!(body, expected),
            (Err(failure), Err(expected)) => {
                assert!(failure.to_string().contains(expected), "{failure}");
            }
            (found, expected) => panic!("{found:?} and not {expected:?}"),
        }
    }

    #[test]
    fn only_a_whole_page_is_one() {
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Ok("{}"));
        check(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", Err("broken off"));
        check(b"HTTP/1.1 404 Not Found\r\n\r\n", Err("no page /lb"));
        check(b"HTTP/1.1 400 Bad\r\n\r\nno level\n", Err("no level"));
        check(b"HTTP/1.1 403 No\r\n\r\nonly from here\n", Err("only from here"));
        check(b"HTTP/1.1 503 Busy\r\n\r\n", Err("answered 503"));
        check(b"SSH-2.0-x\r\n", Err("no admin port"));
        check(b"", Err("no admin port"));
        check(&[21, 3, 3, 0, 2, 2, 80], Err("speaks TLS"));
        check(&[0xff, 0xfe], Err("no admin port"));
    }
}
