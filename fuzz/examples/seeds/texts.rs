//! Texts of each dialect, as its specification and its clients have them.

/// By target.
pub(super) const TEXTS: &[(&str, &[&str])] = &[
    (
        "native_message",
        &[
            r#"{"type":"hello"}"#,
            r#"{"type":"hello","protocol":1,"session":"00000000-0000-4000-8000-000000000001","model":"m","format":{"encoding":"pcm_f32le","sample_rate":48000,"channels":2},"options":{"words":true,"alternatives":3,"phrases":["one","two"],"partials":false,"partial_interval_ms":500,"batch":true},"traceparent":"00-1-2-01","tracestate":"a=b"}"#,
            r#"{"type":"hello","session":"00000000-0000-4000-8000-000000000001","resume":{"token":"Zm9v","epoch":2,"last_final":1,"final_to":64000,"have_from":64000}}"#,
            r#"{"type":"hello","resume":{"token":"Zm9v","epoch":18446744073709551615,"last_final":18446744073709551615,"final_to":18446744073709551615,"have_from":18446744073709551615}}"#,
            r#"{"type":"hello","format":{"encoding":"opus","sample_rate":24000,"channels":1}}"#,
            r#"{"type":"confirm","segment":18446744073709551615}"#,
            r#"{"type":"finalize"}"#,
            r#"{"type":"end"}"#,
        ],
    ),
    (
        "native_server",
        &[
            r#"{"type":"ready","session":"00000000-0000-4000-8000-000000000001","epoch":1,"token":"t","model":"m","have_until":0,"next_segment":0,"resumed":false,"durable":false,"linger_ms":60000}"#,
            r#"{"type":"view","view":2,"token":"t","durable":true,"resume_at":["node-2:80","[::1]:8080"]}"#,
            r#"{"type":"final","segment":0,"from":0,"to":1600,"start":0.0,"end":0.1,"cause":"endpoint","text":"one","words":[{"word":"one","start":0.0,"end":0.1,"confidence":1.0}],"alternatives":[{"text":"one","confidence":0.5,"words":[]}]}"#,
            r#"{"type":"partial","segment":0,"from":0,"until":800,"text":"o"}"#,
            r#"{"type":"warning","code":"option_ignored","message":"m"}"#,
            r#"{"type":"error","code":"busy","message":"m","retry_after_ms":1500}"#,
            r#"{"type":"go_away","deadline_ms":1000}"#,
        ],
    ),
    (
        "client_machine",
        &[
            concat!(
                r#"{"type":"ready","session":"00000000-0000-4000-8000-000000000001","epoch":1,"token":"t","model":"m","have_until":0,"next_segment":0,"resumed":false,"durable":true,"linger_ms":60000}"#,
                "\n{\"audio\":1600}\n",
                r#"{"type":"ack","until":1600}"#,
                "\n\"finalize\"\n",
                r#"{"type":"final","segment":0,"from":0,"to":1600,"start":0.0,"end":0.1,"cause":"finalize","text":"one"}"#,
                "\n{\"delivered\":0}\n",
                r#"{"type":"view","view":2,"token":"t","durable":true,"resume_at":["node-2:80"]}"#,
                "\n\"end\"\n",
                r#"{"type":"done","segments":1,"frames":1600}"#,
            ),
            concat!(
                r#"{"type":"ready","session":"00000000-0000-4000-8000-000000000001","epoch":18446744073709551615,"token":"t","model":"m","have_until":0,"next_segment":0,"resumed":false,"durable":true,"linger_ms":60000}"#,
                "\n{\"audio\":800}\n\"lost\"\n\"tick\"\n",
                r#"{"type":"error","code":"unknown_session","message":"m"}"#,
                "\n\"tick\"\n\"tick\"\n",
                r#"{"type":"go_away","deadline_ms":18446744073709551615}"#,
            ),
            concat!(
                r#"{"type":"ready","session":"00000000-0000-4000-8000-000000000001","epoch":1,"token":"t","model":"m","have_until":0,"next_segment":0,"resumed":false,"durable":true,"linger_ms":60000}"#,
                "\n{\"audio\":800}\n",
                r#"{"type":"go_away","deadline_ms":5000}"#,
                "\n\"tick\"\n",
                r#"{"next":{"type":"ready","session":"00000000-0000-4000-8000-000000000001","epoch":2,"token":"t","model":"m","have_until":800,"next_segment":0,"resumed":true,"durable":true,"linger_ms":60000}}"#,
                "\n\"tick\"\n\"lost\"\n\"tick\"",
            ),
        ],
    ),
    (
        "vosk",
        &[
            r#"{"config":{"sample_rate":16000.0,"words":true,"max_alternatives":3,"phrase_list":["one","two"],"model":"m"}}"#,
            r#"{"config":{"sample_rate":"8000","words":"true","max_alternatives":"1e40"}}"#,
            r#"{"eof" : 1}"#,
            r#"{"reset":1}"#,
        ],
    ),
    (
        "gstreamer",
        &[
            "audio/x-raw, layout=(string)interleaved, rate=(int)16000, format=(string)S16LE, channels=(int)1",
            "audio/x-raw-int;rate=8000;channels=\"2\"",
            "audio/x-mulaw, rate=(int)8000",
            "EOS",
            r#"{"adaptation_state":{"type":"string+gzip+base64","value":"eJwDAAAAAAE="}}"#,
        ],
    ),
    (
        "deepgram",
        &[
            "encoding=linear16&sample_rate=16000&channels=2&multichannel=true&interim_results=true&vad_events=1&utterance_end_ms=1000&model=nova-3&language=en&keywords=starling:2&keyterm=a b&smart_format=true",
            "encoding=opus&sample_rate=48000",
            "encoding=flac",
            r#"{"type":"KeepAlive"}"#,
            r#"{"type":"Finalize"}"#,
            r#"{"type":"CloseStream"}"#,
        ],
    ),
    (
        "realtime",
        &[
            concat!(
                r#"{"type":"session.update","event_id":"e","session":{"type":"transcription","audio":{"input":{"format":{"type":"audio/pcm","rate":24000},"transcription":{"model":"whisper-1","language":"en","prompt":"p"},"turn_detection":{"type":"server_vad","threshold":0.5,"silence_duration_ms":500}}}}}"#,
                "\n",
                r#"{"type":"input_audio_buffer.append","audio":"AAAAAA=="}"#,
                "\n",
                r#"{"type":"input_audio_buffer.commit"}"#,
                "\n",
                r#"{"type":"input_audio_buffer.clear"}"#,
            ),
            r#"{"type":"transcription_session.update","session":{"input_audio_format":"g711_ulaw","input_audio_transcription":{"model":"gpt-4o-transcribe"},"turn_detection":null}}"#,
            r#"{"type":"session.update","session":{"type":"transcription","audio":{"input":{"format":{"type":"audio/pcma"},"turn_detection":{"type":"semantic_vad"},"noise_reduction":{"type":"near_field"}}},"include":["item.input_audio_transcription.logprobs"]}}"#,
            r#"{"type":"input_audio_buffer.append","audio":"not base64!"}"#,
        ],
    ),
    ("openai_model", &["whisper-1", "gpt-4o-mini-transcribe-2025-12-15", "gpt-realtime"]),
    (
        "api_key",
        &[
            "/v1/stream?token=k1&api_key=k%32\nBearer k1\ntoken, k1",
            "/v1/transcriptions?model=m&to%6ben=k1&silence_ms=500?&&x",
            "http://host/v1/realtime\nToken  k1 \nrealtime, openai-insecure-api-key.k1, openai-beta.realtime-v1",
            "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
        ],
    ),
    (
        "jwt",
        &[
            "{\"alg\":\"EdDSA\",\"typ\":\"JWT\",\"kid\":\"a\"}\n{\"tenant\":\"acme\",\"exp\":4102444800,\"nbf\":0,\"iss\":\"i\",\"aud\":[\"a\"]}",
            "{\"alg\":\"none\"}\n{\"tenant\":\"acme\",\"exp\":4102444800}",
            "eyJhbGciOiJFZERTQSJ9.eyJ0ZW5hbnQiOiJhIn0.AAAA",
            r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":"b"}]}"#,
            r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"},{"kty":"RSA","n":"AQAB","e":"AQAB","use":"enc"}]}"#,
        ],
    ),
    (
        "traceparent",
        &[
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-what-else",
            "00-00000000000000000000000000000000-b7ad6b7169203331-00",
        ],
    ),
    (
        "origin",
        &[
            "http://10.0.0.1:8080\n10.0.0.1:8080",
            "https://[fd00::1]\n[fd00::1]",
            "http://localhost:3000\nstarling.example",
            "http://starling.example\nstarling.example",
        ],
    ),
    (
        "upload_form",
        &[
            "multipart/form-data; boundary=b\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF....\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b\r\nContent-Disposition: form-data; name=\"language\"\r\n\r\nen\r\n--b\r\nContent-Disposition: form-data; name=\"response_format\"\r\n\r\nverbose_json\r\n--b\r\nContent-Disposition: form-data; name=\"timestamp_granularities[]\"\r\n\r\nword\r\n--b--\r\n",
            "multipart/form-data; boundary=\"a b\"\n--a b\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\ntrue\r\n--a b\r\nContent-Disposition: form-data; name=\"response_format\"\r\n\r\nxml\r\n--a b--",
            "application/json\n{\"file\":\"\"}",
        ],
    ),
    (
        "model_import",
        &[
            concat!(
                "use-nnet2: True\ndecoder:\n  nnet-mode: 3\n  model: final.mdl\n  fst: graph/HCLG.fst\n  beam: 11.5\n  max-active: 10000\n  do-endpointing: true\n",
                "  endpoint-silence-phones: 1:2:3\n  endpoint-rule2-min-trailing-silence: 0.7\n  mystery: on\n",
                "\n%\n--min-active=200\n--endpoint.silence-phones=1:2\n",
                "\n%\n--num-ceps=40 # hires\n--sample-frequency=8000\n--dither=1\n",
                "\n%\n--splice-config=ivector/splice_opts\n--ivector-period=10\n",
                "\n%\n--left-context=3 --right-context=3\n",
                "\n%\n1 nonword\n2 begin\n7 nonword\n",
            ),
            "beam: 1e3\nacoustic-scale: \"0.5\"\n%\n\n%\n\n%\n\n%\n\n%\n1 nonword",
        ],
    ),
];
