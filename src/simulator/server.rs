//! The HTTP side: reads calls off the wire, lets faults and platform decide, and writes the answers.

use std::borrow::Cow;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_timer::Delay;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::account::Reply;
use super::calls::{Answered, Calls};
use super::connection::{Connection, Cut, Listener};
use super::control;
use super::errcode;
use super::faults::{Effect, Fate, Faults};
use super::platform::Platform;
use super::request::{Endpoint, Request};

/// The largest body that is read.
const LARGEST_BODY: usize = 1024 * 1024;
/// How long callers that are slow to send or to read may hold up the end.
const GRACE: Duration = Duration::from_secs(1);
/// What a gateway shows to a browser.
const GATEWAY_PAGE: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
    <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";

/// What all calls share.
pub(super) struct Server {
    pub settings: Settings,
    state: Mutex<ServerState>,
    shutdown: CancellationToken,
}

/// One lock for all of it: it is never held across an await, and nothing under it takes long.
pub(super) struct ServerState {
    pub platform: Platform,
    pub faults: Faults,
    pub calls: Calls,
}

/// What goes back to the caller.
enum Answer {
    Json(Cow<'static, str>),
    Status(StatusCode),
    GatewayPage,
    Cut(Cut),
    Silence,
}

/// Serves until `shutdown` is cancelled.
pub(super) async fn run(listener: TcpListener, settings: Settings, state: ServerState, shutdown: CancellationToken) -> io::Result<()> {
    let server = Arc::new(Server { settings, state: Mutex::new(state), shutdown: shutdown.clone() });
    let routes = Router::new()
        .merge(control::routes())
        .fallback(call)
        .with_state(server.clone())
        .into_make_service_with_connect_info::<Connection>();
    let serving = axum::serve(Listener(listener), routes).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let out_of_patience = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = serving => result,
        () = out_of_patience => Ok(()),
        error = server.keep_tickets() => Err(error),
    }
}

/// Any call that is not the control endpoint's.
async fn call(
    State(server): State<Arc<Server>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: axum::extract::Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let Some(endpoint) = Endpoint::at(path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if parts.method == Method::POST && !has_length(&parts.headers) {
        return server.refuse(endpoint, StatusCode::PRECONDITION_FAILED);
    }
    let Ok(body) = to_bytes(body, LARGEST_BODY).await else {
        return server.refuse(endpoint, StatusCode::PAYLOAD_TOO_LARGE);
    };
    let query = parts.uri.query().unwrap_or_default();
    let request = Request::read(endpoint, path, &parts.method, query, &body);
    let answer = server.clone().carry_out(request).await;
    server.respond(answer, &connection).await
}

/// WeChat's gateway takes no chunked bodies.
fn has_length(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING)
}

impl ServerState {
    /// The state at start. The ticket file, where one is asked for, then holds the first ticket.
    pub fn new(settings: &Settings) -> io::Result<Self> {
        let now = SystemTime::now();
        let platform = Platform::new(settings, now);
        let mut state = Self { platform, faults: Faults { rules: settings.faults.clone() }, calls: Calls::default() };
        state.keep_ticket(settings, now)?;
        Ok(state)
    }
}

impl Server {
    /// All that changes, for a moment.
    pub fn state(&self) -> MutexGuard<'_, ServerState> {
        // A panic under the lock would be a fault of one call; the others still get their answers.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts and answers a call that the gateway lets nobody see.
    fn refuse(&self, endpoint: Endpoint, status: StatusCode) -> Response {
        let answered = Answered::HttpStatus(status.as_u16());
        self.state().calls.end(endpoint, None, None, answered);
        status.into_response()
    }

    /// From arrival to answer, faults included.
    async fn carry_out(self: Arc<Self>, request: Request) -> Answer {
        let fate = self.begin(&request);
        if fate.delay.is_zero() {
            return self.finish(&request, fate.effect);
        }
        let shutdown = self.shutdown.clone();
        // A task of its own: what was sent to WeChat happens, whether the caller waits for it or not.
        let work = tokio::spawn(async move {
            // To the tenth of a millisecond, which the runtime's own timer is not: it ends up to two too late.
            Delay::new(fate.delay).await;
            self.finish(&request, fate.effect)
        });
        tokio::select! {
            answer = work => answer.unwrap_or(Answer::Cut(Cut::Reset)),
            () = shutdown.cancelled() => Answer::Cut(Cut::Close),
        }
    }

    fn begin(&self, request: &Request) -> Fate {
        let mut state = self.state();
        let ServerState { platform, faults, calls } = &mut *state;
        calls.begin(request.kf_account());
        if faults.rules.is_empty() {
            return Fate::default();
        }
        let wechat_id = platform.wechat_id(request, SystemTime::now());
        faults.draw(request.endpoint(), wechat_id, request.kf_account())
    }

    /// Does the work, unless the effect is that it is not done, and counts the call.
    fn finish(&self, request: &Request, effect: Option<Effect>) -> Answer {
        let mut state = self.state();
        let now = SystemTime::now();
        let ServerState { platform, calls, .. } = &mut *state;
        let mut work = || platform.answer(request, now);
        let (answered, answer) = match effect {
            None => json_answer(work()),
            Some(Effect::Errcode(errcode)) => json_answer(Err(errcode)),
            Some(Effect::HttpStatus(status)) => {
                (Answered::HttpStatus(status), Answer::Status(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY)))
            }
            Some(Effect::Malformed) => (Answered::Malformed, Answer::GatewayPage),
            Some(Effect::Reset) => (Answered::Reset, Answer::Cut(Cut::Reset)),
            Some(Effect::LostAnswer) => {
                // Nobody learns how it went.
                let _ = work();
                (Answered::LostAnswer, Answer::Cut(Cut::Close))
            }
            Some(Effect::Hang) => {
                let _ = work();
                (Answered::Hang, Answer::Silence)
            }
        };
        calls.end(request.endpoint(), platform.wechat_id(request, now), request.kf_account(), answered);
        answer
    }

    /// The answer as HTTP, or the end of the connection instead of it.
    async fn respond(&self, answer: Answer, connection: &Connection) -> Response {
        match answer {
            Answer::Json(body) => self.json(Body::from(body)),
            Answer::Status(status) if status.is_redirection() => {
                // A redirect without a target would not show whether a caller follows it.
                (status, [(LOCATION, "/redirected")]).into_response()
            }
            Answer::Status(status) => status.into_response(),
            Answer::GatewayPage => ([(CONTENT_TYPE, "text/html")], GATEWAY_PAGE).into_response(),
            Answer::Cut(cut) => {
                connection.cut(cut);
                Response::default()
            }
            Answer::Silence => {
                self.shutdown.cancelled().await;
                connection.cut(Cut::Close);
                Response::default()
            }
        }
    }

    fn json(&self, body: Body) -> Response {
        let content_type = match self.settings.text_plain {
            true => "text/plain",
            false => "application/json; encoding=utf-8",
        };
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }
}

fn json_answer(reply: Reply) -> (Answered, Answer) {
    match reply {
        Ok(body) => (Answered::Errcode(errcode::OK), Answer::Json(body)),
        Err(code) => (Answered::Errcode(code), Answer::Json(errcode::body(code).into())),
    }
}
