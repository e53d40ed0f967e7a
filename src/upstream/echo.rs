//! The built-in upstream that answers with the request it received.

/// Serves for ever.
pub async fn serve(listener: tokio::net::TcpListener) {
    loop {
        let _ = listener.accept().await;
    }
}
