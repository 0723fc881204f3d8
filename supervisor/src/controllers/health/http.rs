//! The probe of a service that answers over HTTP.

use http_body_util::Empty;
use hyper::Request;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(1);

/// GET answers with a status below 400; else why not.
pub(super) async fn http_ok(target: &str, path: &str) -> Result<(), String> {
    let ask = async {
        let request = Request::get(path).header(hyper::header::HOST, target).body(Empty::<&[u8]>::new()).map_err(|error| error.to_string())?;
        let stream = TcpStream::connect(target).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let answer = sender.send_request(request);
        // The connection does the work; it goes with this future.
        tokio::pin!(connection, answer);
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        };
        answer.map(|answer| answer.status()).map_err(|error| error.to_string())
    };
    let answer = tokio::time::timeout(PATIENCE, ask).await;
    match answer.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))? {
        status if status.as_u16() < 400 => Ok(()),
        status => Err(format!("answers {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A server on a free port that gives one answer and closes.
    async fn answers(head: &'static str, path: &str) -> (bool, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let length = stream.read(&mut asked).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        };
        tokio::join!(async { http_ok(&target, path).await.is_ok() }, server)
    }

    #[tokio::test]
    async fn http_is_ready_below_400_and_asks_for_the_path() {
        let (ok, asked) = answers("HTTP/1.1 204 No Content\r\n\r\n", "/health?x=1").await;
        assert!(ok && asked.starts_with("GET /health?x=1 HTTP/1.1\r\n"), "{asked}");
        assert!(answers("HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", "/").await.0);
        assert!(!answers("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "/").await.0);
        assert!(!answers("SSH-2.0-x\r\n", "/").await.0);
    }

    #[tokio::test]
    async fn http_is_not_ready_when_nobody_listens() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert!(http_ok(&target, "/").await.unwrap_err().contains("refused"));
    }
}
