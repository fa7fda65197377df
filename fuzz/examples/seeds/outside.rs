//! What comes before a protocol: addresses, headers, answers to requests, and what an operator hands over.

use super::Seeds;

pub(super) fn outside(seeds: &mut Seeds) {
    for (target, choices) in CHOSEN {
        for (number, (choice, text)) in choices.iter().enumerate() {
            seeds.push((target, format!("seed-{number}"), [choice, text.as_bytes()].concat()));
        }
    }
    for (target, texts) in TEXTS {
        for (number, text) in texts.iter().enumerate() {
            seeds.push((target, format!("seed-{number}"), text.as_bytes().to_vec()));
        }
    }
    let tokens = [b"\x03<s>\x05\xE2\x96\x81it\x02's\xAC\x02".as_slice(), &[b'x'; 300]].concat();
    seeds.push(("vocabulary", "seed-0".into(), [b"\x04", tokens.as_slice()].concat()));
}

/// The bytes by which a target chooses, and a text behind them.
type Chosen = (&'static [u8], &'static str);

/// By target.
const CHOSEN: &[(&str, &[Chosen])] = &[
    (
        "client_upgrade",
        &[
            (b"\xF7\x01", r#"{"error":{"code":"busy","message":"m","retry_after_ms":1500}}"#),
            (
                b"\xAD\x01",
                r#"{"error":{"code":"bad_request","message":"m","field":"path","value":"/x","allowed":"/v1/stream"}}"#,
            ),
            (b"\x91\x01", "<html>401</html>"),
            (b"\x93\x01", ""),
            (b"\xF6\x01", "bad gateway"),
        ],
    ),
    (
        "server_answers",
        &[
            (
                b"\x28",
                r#"{"node":"node-1","nodes":[{"name":"node-1","generation":1790000000123,"state":"alive","zone":"eu-1a","roles":["gateway","decoder"],"version":"0.1.0","gossip":"10.0.0.1:7400","http":null,"models":[{"name":"m","nodes":1,"slots":{"total":16,"busy":3,"idle":13},"real_time_factor":0.0451,"hosts":{"ready":1,"total":2}}]},{"name":"node-2","generation":1,"state":"draining","zone":"","roles":[],"version":"","gossip":null,"http":"[fd00::1]:8080","models":[]}],"models":[{"name":"m","nodes":1,"slots":{"total":18446744073709551615,"busy":18446744073709551615,"idle":13},"real_time_factor":1e300}],"sessions":[{"session":"6f2c1f5e-08a3-4b0e-9f0d-3f6f0f5f7a11","owner":"node-1","dialect":"native","model":"m","copies":["node-2"],"durable":true,"connected":false,"decoder":"node-1","standby":null,"attempt":2,"epoch":1,"lag_ms":18446744073709551615,"audio_ms":61000}]}"#,
            ),
            (
                b"\x07",
                "{\"node\":\"\\u001b[2J\",\"nodes\":[{\"name\":\"한국\\n한국\",\"generation\":0,\"state\":\"down\",\"zone\":\"\",\"roles\":[],\"version\":\"\",\"gossip\":null,\"http\":null,\"models\":[]}],\"models\":[]}",
            ),
            (
                b"\x00",
                r#"{"nodes":[{"node":"a","change":"added","digest":"0123456789abcdef"},{"node":"b","error":"there is none\n"}]}"#,
            ),
            (b"\xC8", r#"{"error":{"code":"unauthorized","message":"a key is needed"}}"#),
            (b"\xC9", "\x1b]0;title\x07<html>\tBad Gateway</html>"),
        ],
    ),
    (
        "api_server",
        &[
            // More pods are needed, and then fewer.
            (b"\x1D", "lease 200 =\nscale 200 ="),
            (
                b"\x04",
                "lease 200 =\nscale 200 =\npod 200 {\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":{\"phase\":\"Pending\"}}",
            ),
            (
                b"\x08",
                concat!(
                    "lease 200 =\n",
                    r#"scale 200 {"kind":"Scale","apiVersion":"autoscaling/v1","metadata":{"name":"starling","resourceVersion":"7"},"spec":{"replicas":4},"status":{"replicas":4}}"#,
                    "\n",
                    r#"scale 200 {"kind":"Scale","apiVersion":"autoscaling/v1","metadata":{},"spec":{"replicas":2147483647},"status":{"replicas":-1}}"#,
                    "\n",
                    r#"scale 409 {"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"Conflict","code":409}"#,
                ),
            ),
            (
                b"\x1D",
                concat!(
                    r#"lease 200 {"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"starling-scaler","resourceVersion":"9"},"spec":{"holderIdentity":"starling-1#7","leaseDurationSeconds":3,"leaseTransitions":2147483647,"acquireTime":"2026-11-30T08:00:00.000000Z","renewTime":"2026-11-30T08:00:00.000000Z"}}"#,
                    "\n",
                    r#"lease 200 {"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"resourceVersion":"9"},"spec":{"holderIdentity":"starling-0#1","leaseDurationSeconds":-1,"leaseTransitions":-1}}"#,
                    "\nlease 403 no\nlease 200 =\nscale 200 =",
                ),
            ),
            (b"\x00", "lease 404 <html>\nlease 500\nscale 404 {}\npod 404 {\"code\":404}"),
        ],
    ),
];

/// By target.
const TEXTS: &[(&str, &[&str])] = &[
    (
        "server_address",
        &[
            "ws://localhost:2800",
            "wss://[fd00::1]/x?y=1",
            "quic://10.0.0.7:8443/",
            "node-2.starling.svc:8080",
            "[fd00::1]:8080",
            "ws://me:secret@a:80",
        ],
    ),
    (
        "request_query",
        &[
            "/v1/transcriptions?model=m&language=en&words=true&alternatives=3&channels=apart&silence_ms=500&max_segment_ms=10000",
            "/v1/cluster/drain?node=a&deadline_ms=86400000&stay_ms=1",
            "/v1/models?name=m&node=a&hosts=1&slots=8&threads=2&prewarm=1",
            "/v1/realtime?intent=transcription&model=whisper-1\nopenai-beta: realtime=v1\nsec-websocket-protocol: realtime, openai-beta.realtime-v1",
            "/client/ws/speech?content-type=audio/x-raw,+rate=(int)16000&content-id=call+7&user-id=ann&model=m&language=en",
            "/client/ws/speech?content-id=none\ndevice-id: phone-7\ncontent-id: call 7",
        ],
    ),
    (
        "request_headers",
        &[
            "content-id: call 1\nlast-event-id: 0000002a-7\nuuid: 6f2c1f5e-08a3-4b0e-9f0d-3f6f0f5f7a11\nhost: node-2:8443",
            "content-id: ../../etc/x\nlast-event-id: ffffffff-18446744073709551615\nuuid: 6F2C1F5E08A34B0E9F0D3F6F0F5F7A11\nhost: [fd00::1]:8443",
            "content-id: %2E.+ /\\~\nlast-event-id: 0-20\nhost: a; script-src *",
        ],
    ),
    (
        "transcript",
        &[concat!(
            r#"{"segment":0,"from":0,"to":1600,"start":0.0,"end":1.2345,"cause":"endpoint","text":"R&D <one> --> two"}"#,
            "\n",
            r#"{"segment":1,"from":1600,"to":3200,"start":1e300,"end":-5.0,"cause":"pause","text":""}"#,
            "\n",
            r#"{"segment":2,"from":3200,"to":4800,"start":3661.5,"end":3662.0,"cause":"finalize","text":"a\n\n2\r\n00:00:00,000 --> 00:00:01,000\u0007","words":[{"word":"a","start":0.0,"end":0.1,"confidence":1.0}]}"#,
        )],
    ),
    (
        "key_list",
        &[
            "# Acme's\nsha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n\n",
            "acme=sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b, other = SHA256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855 ,",
            "\nstarling_abcdefghijklmnopqrstuvwxyz\n",
        ],
    ),
    (
        "trace_variables",
        &[
            "OTEL_EXPORTER_OTLP_ENDPOINT=http://me:secret@collector:4317/v1/traces\nOTEL_EXPORTER_OTLP_PROTOCOL=http/json\nOTEL_EXPORTER_OTLP_TIMEOUT=5000\nOTEL_TRACES_SAMPLER=parentbased_traceidratio\nOTEL_TRACES_SAMPLER_ARG=0.1\nOTEL_BSP_MAX_QUEUE_SIZE=4096\nOTEL_RESOURCE_ATTRIBUTES=deployment.environment=a,service.name=b",
            "OTEL_TRACES_EXPORTER=console,otlp\nOTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector:4317\nOTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc\nOTEL_EXPORTER_OTLP_INSECURE=true\nOTEL_EXPORTER_OTLP_COMPRESSION=zstd\nOTEL_TRACES_SAMPLER=jaeger_remote\nOTEL_EXPORTER_OTLP_CLIENT_KEY=/k",
            "OTEL_SDK_DISABLED=true\nOTEL_EXPORTER_OTLP_ENDPOINT=https://a",
            "OTEL_EXPORTER_OTLP_ENDPOINT=https://a\nOTEL_BSP_MAX_QUEUE_SIZE=0",
        ],
    ),
    ("peer_identity", &["node-1.eu#1790000000123", "a#18446744073709551615", "a#0"]),
    (
        "vosk_model",
        &[
            "--num-ceps=40\n--dither=0.0 # no chance\n%\n--beam=10.0\n%\n1\n2\n%\n--left-context=3\n--right-context=3\n%\n# none\n%\n{\"result\":[{\"conf\":0.5,\"end\":3600.61,\"start\":3600.45,\"word\":\"one\"},{\"word\":\"[2]\"}],\"text\":\"one [2]\"}",
            "--dither=0\n%\n--beam=10.0\n%\n-1\n%\n--a=b\n%\n\n%\n{\"alternatives\":[{\"confidence\":200.1,\"text\":\"a b\",\"result\":[{\"start\":1e300,\"end\":-1,\"word\":\"a\"}]}]}",
            "--dither=1.0\n%\n",
        ],
    ),
];
