//! The body of a request to the webhook, from its bytes to the bytes of the answer, with policies that ask all that
//! there is to ask.
#![no_main]

mod policies;

use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use libfuzzer_sys::fuzz_target;
use rampart::{
    admission::{Answer, Fixed, Preview, Request, Review, decide, fix},
    hardening::{Covering, Enforcement, Kept, Policies},
};
use serde_json::{Value, json};

struct World {
    known: Policies,
    covering: std::sync::Arc<[Covering]>,
    /// A pod that is there when policies change.
    pod: Kept,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let known = policies::known();
    let labels = known.labels[policies::NAMESPACE].clone();
    let covering = known.covering(policies::NAMESPACE, &labels);
    assert!(covering.iter().any(|covering| !covering.exceptions.is_empty()), "the exception is not permitted");
    let spec = json!({"hostNetwork": true, "containers": [{"name": "a", "image": "nginx:latest"}]});
    let pod = Kept::of(&ObjectMeta::default(), json!({"spec": spec})).expect("a pod that runs");
    World { known, covering, pod }
});

/// An answer, as the API server reads it.
fn answered(request: &Request<'_>, enforcement: Enforcement) -> Value {
    let World { known, covering, pod } = &*WORLD;
    let now = policies::now();
    let mut answer = decide(request, covering, enforcement, now);
    if answer.allowed
        && let Some(mut preview) = Preview::of(request, known)
    {
        let namespace = preview.namespace.clone().unwrap_or_else(|| policies::NAMESPACE.into());
        preview.judge((&namespace, "web-0"), pod, now);
        answer.warnings.extend(preview.warnings(1, 2));
    }
    read(answer, request)
}

fn read(answer: Answer, request: &Request<'_>) -> Value {
    let body = answer.to_body(&request.uid).expect("an answer can be written");
    serde_json::from_slice(&body).expect("an answer is JSON")
}

/// What is set in a pod; nobody is refused by it.
fn fixed(request: &Request<'_>, enforcement: Enforcement) {
    let (answer, outcomes) = fix(request, &WORLD.covering, enforcement, policies::now());
    let answer = read(answer, request);
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
    let patched = answer["response"].get("patch").is_some();
    assert_eq!(patched, outcomes.contains(&Fixed::Applied), "{answer}");
    assert!(!patched || enforcement == Enforcement::InForce, "{answer}");
}

fuzz_target!(|body: &[u8]| {
    let Ok(request) = Review::parse(body) else { return };
    let own = request.kind.group == rampart::GROUP;
    for enforcement in [Enforcement::InForce, Enforcement::Paused] {
        let answer = answered(&request, enforcement);
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        let response = &answer["response"];
        assert_eq!(response["uid"], *request.uid);
        let code = response["status"]["code"].as_u64();
        assert_eq!(response["allowed"], code.is_none(), "who is refused is told why: {answer}");
        let codes: &[u64] = match enforcement {
            _ if own => &[422],
            Enforcement::InForce => &[400, 403],
            // A pause admits all that can be read.
            Enforcement::Paused => &[400],
        };
        assert!(code.is_none_or(|code| codes.contains(&code)), "{answer}");
        assert!(response["status"]["message"].as_str().is_none_or(|message| !message.is_empty()), "{answer}");
        assert_eq!(answer, answered(&request, enforcement), "the same is decided again");
        fixed(&request, enforcement);
    }
});
