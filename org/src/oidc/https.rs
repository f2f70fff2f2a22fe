//! HTTPS to one provider: TLS 1.3, a bounded answer in bounded time, no redirects.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::TlsConnector;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::compat::{FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use zeroize::Zeroizing;

use super::ProviderError;
use crate::OrgError;

/// A question and its answer take no longer.
const LONGEST: Duration = Duration::from_secs(15);
/// Most bytes of an answer.
const MAX_ANSWER: usize = 256 << 10;

/// What is sent.
pub(super) enum HttpsRequest {
    /// Nothing: the document at the address is wanted.
    Get,
    /// A form, which may have secrets in it.
    Form(Zeroizing<String>),
}

/// An answer, whatever it says.
pub(super) struct Answered {
    /// The status of HTTP.
    pub(super) status: u16,
    /// The body, which may have tokens.
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// A client that trusts the system's root certificates, or those of one file.
#[derive(Clone)]
pub(super) struct Https(Arc<ClientConfig>);

impl Https {
    /// Reads the root certificates.
    ///
    /// # Errors
    /// There are none.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, OrgError> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(path) => {
                let wrong = |why: String| OrgError::Contents { path: path.into(), why };
                let file = std::fs::read(path)
                    .map_err(|source| OrgError::File { path: path.into(), source })?;
                for certificate in CertificateDer::pem_slice_iter(&file) {
                    let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                    roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(wrong("it has no certificate in PEM".into()));
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    return Err(OrgError::Refused(
                        "this system has no root certificates: install ca-certificates, or name a file by `ca`".into(),
                    ));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| OrgError::Refused(error.to_string()))?;
        Ok(Self(Arc::new(versions.with_root_certificates(roots).with_no_client_auth())))
    }

    /// Asks, and takes the whole answer.
    ///
    /// # Errors
    /// The provider cannot be reached, or answers too much or too late.
    pub(super) async fn ask(
        &self,
        uri: &Uri,
        sent: HttpsRequest,
        authorization: Option<&str>,
    ) -> Result<Answered, ProviderError> {
        timeout(LONGEST, self.exchange(uri, sent, authorization))
            .await
            .map_err(|_| ProviderError::Unreachable("it does not answer in time".into()))?
    }

    async fn exchange(
        &self,
        uri: &Uri,
        sent: HttpsRequest,
        authorization: Option<&str>,
    ) -> Result<Answered, ProviderError> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            ProviderError::Unreachable(shoal_host::exit::chain(error))
        };
        let authority = uri.authority().ok_or(ProviderError::Address)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| ProviderError::Address)?;
        let port = authority.port_u16().unwrap_or(443);
        let stream = TcpStream::connect((host, port)).await.map_err(|error| failed(&error))?;
        let secured = TlsConnector::from(self.0.clone()).connect(name, stream.compat());
        let stream = secured.await.map_err(|error| {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            match cause {
                Some(rustls::Error::InvalidCertificate(_)) => ProviderError::Certificate,
                _ => failed(&error),
            }
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream.compat()))
                .await
                .map_err(|error| failed(&error))?;
        // It ends with the sender, and its errors come by the answer too.
        let connection = tokio::spawn(connection);
        let request = request(uri, authority.as_str(), sent, authorization)?;
        let answered = async {
            let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| ProviderError::Unreachable(error.to_string()))?;
            Ok(Answered { status, body: Zeroizing::new(body.to_bytes().to_vec()) })
        };
        let answered = answered.await;
        connection.abort();
        answered
    }
}

fn request(
    uri: &Uri,
    authority: &str,
    sent: HttpsRequest,
    authorization: Option<&str>,
) -> Result<Request<Full<Bytes>>, ProviderError> {
    let (method, body) = match &sent {
        HttpsRequest::Get => (Method::GET, Bytes::new()),
        HttpsRequest::Form(form) => (Method::POST, Bytes::copy_from_slice(form.as_bytes())),
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/json");
    if matches!(sent, HttpsRequest::Form(_)) {
        request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    if let Some(authorization) = authorization {
        let mut value = HeaderValue::from_str(authorization).map_err(|_| ProviderError::Address)?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    request.body(Full::new(body)).map_err(|_| ProviderError::Address)
}
