//! TLS to both servers, with an authority of the test's own. Defect 21 of rusty-celery: `amqps://` and `rediss://` made it
//! panic.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use celery_broker::{BackendErrorKind, BrokerErrorKind, Celery};
use celery_testkit::{Rabbit, Redis, ports};

/// An authority and a certificate for `localhost`.
struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    fn make() -> Self {
        let folder =
            std::env::temp_dir().join(format!("celeriac-tls-{}-{}", std::process::id(), ports::free()));
        std::fs::create_dir_all(&folder).unwrap();
        let made = Self { folder };
        made.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem");
        made.openssl("req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -keyout server.key -out server.csr");
        std::fs::write(made.folder.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        made.openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem");
        made
    }

    fn openssl(&self, args: &str) {
        let output = Command::new("openssl")
            .args(args.split(' '))
            .current_dir(&self.folder)
            .output()
            .expect("openssl is missing: `make deps` installs it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(Path::new(name)).display().to_string()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test]
async fn defect_21_both_servers_over_tls() {
    let certificates = Certificates::make();
    let (ca, cert, key) =
        (certificates.path("ca.pem"), certificates.path("server.pem"), certificates.path("server.key"));
    let (broker_port, backend_port) = (ports::free(), ports::free());
    let conf = format!(
        "listeners.ssl.default = 127.0.0.1:{broker_port}\nssl_options.cacertfile = {ca}\n\
         ssl_options.certfile = {cert}\nssl_options.keyfile = {key}\nssl_options.verify = verify_none\n"
    );
    let _rabbit = Rabbit::start_with(&conf, "+S 1:1").await;
    let port = backend_port.to_string();
    let _redis = Redis::start_with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let broker = format!("amqps://guest:guest@localhost:{broker_port}//");
    let backend = format!("rediss://localhost:{backend_port}/0?ssl_cert_reqs=CERT_REQUIRED");

    let celery = Celery::builder("it")
        .broker(format!("{broker}?ssl_ca_certs={ca}"))
        .backend(format!("{backend}&ssl_ca_certs={ca}"))
        .connect()
        .await
        .unwrap();
    let mut consumer = crate::support::consumer(&celery, &["q"], 1).await;
    crate::support::publish(&celery, "q", "a").await;
    crate::support::delivery(&mut consumer).await.token.ack();
    consumer.flush().await.unwrap();
    celery.backend().ping().await.unwrap();
    celery.close().await;

    // Nobody vouches for this authority, and there is no falling back.
    let stranger = Celery::builder("it")
        .broker(&broker)
        .backend(&backend)
        .connect_timeout(Duration::from_secs(2))
        .start()
        .unwrap();
    let err = stranger.wait_connected(Duration::from_secs(3)).await.unwrap_err();
    assert_eq!(*err.kind(), BrokerErrorKind::Connect, "{err}");
    assert!(err.to_string().contains("certificate"), "{err}");
    let err = stranger.backend().ping().await.unwrap_err();
    assert_eq!(err.kind(), BackendErrorKind::Connect, "{err:?}");
    stranger.close().await;
}
