use std::time::Duration;

use starling_protocol::native::ErrorCode;
use tokio::time::timeout;

use super::*;

const FLAC: &[u8] = include_bytes!("../../../tests/recordings/sweep.flac");
const OPUS: &[u8] = include_bytes!("../../../tests/recordings/sweep.opus");
const MP3: &[u8] = include_bytes!("../../../tests/recordings/sweep.mp3");

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A WAV of two channels, whose samples count up on the left and down on the right, with metadata behind them.
fn wav(frames: i16) -> Vec<u8> {
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 8_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec).expect("begins");
    for frame in 0..frames {
        writer.write_sample(frame).and_then(|()| writer.write_sample(-frame)).expect("writes");
    }
    writer.finalize().expect("ends");
    let mut bytes = bytes.into_inner();
    bytes.extend_from_slice(b"LIST\x04\0\0\0meta");
    bytes
}

/// What comes out of messages of this size. A message is sent whenever one is taken, as gateways read.
async fn heard(bytes: &[u8], size: usize, kept: Channels) -> Result<(LiveAudio, Vec<Vec<u8>>), ErrorBody> {
    let mut messages = bytes.chunks(size).map(Bytes::copy_from_slice);
    let mut opening = Opening::new(kept);
    let mut audio = loop {
        tokio::select! {
            begun = opening.begun() => match begun? {
                Some(audio) => break audio,
                None => continue,
            },
            () = sent(), if opening.takes() => match messages.next() {
                Some(message) => opening.push(&message),
                None => opening.close(),
            },
        }
    };
    let mut out = vec![Vec::new(); audio.streams()];
    loop {
        tokio::select! {
            more = audio.more(&mut out) => if more? == Came::End { return Ok((audio, out)) },
            () = sent(), if audio.takes() => match messages.next() {
                Some(message) => audio.push(message),
                None => audio.close(),
            },
        }
    }
}

/// As long as a client takes to send its next message.
async fn sent() {
    tokio::time::sleep(Duration::from_micros(200)).await;
}

fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|sample| i16::from_le_bytes([sample[0], sample[1]])).collect()
}

#[tokio::test]
async fn a_wav_is_its_samples_however_it_is_cut() {
    for size in [1, 7, 4_000] {
        let (audio, out) =
            timeout(PATIENCE, heard(&wav(300), size, Channels::Mixed)).await.expect("ends").expect("fine");
        assert_eq!((audio.sample_rate, audio.channels, out.len()), (8_000, 2, 1));
        assert_eq!(samples(&out[0]), vec![0; 300], "in messages of {size}");
    }
}

#[tokio::test]
async fn channels_are_kept_apart() {
    let (_, out) = heard(&wav(300), 100, Channels::Apart).await.expect("fine");
    let left: Vec<i16> = (0..300).collect();
    let right: Vec<i16> = (0..300).map(|frame: i16| -frame).collect();
    assert_eq!(out.iter().map(|stream| samples(stream)).collect::<Vec<_>>(), [left, right]);
}

#[tokio::test]
async fn what_is_compressed_is_decoded_while_it_comes() {
    for (name, bytes, sample_rate) in [("flac", FLAC, 16_000), ("opus", OPUS, 48_000), ("mp3", MP3, 16_000)] {
        for size in [300, bytes.len()] {
            let heard = timeout(PATIENCE, heard(bytes, size, Channels::Apart)).await.expect("ends");
            let (audio, out) = heard.expect(name);
            assert_eq!((audio.sample_rate, out.len()), (sample_rate, usize::from(audio.channels)), "{name}");
            let second = 2 * sample_rate as usize;
            assert!((second * 9 / 10..second * 13 / 10).contains(&out[0].len()), "{name}: {}", out[0].len());
        }
    }
}

#[tokio::test]
async fn samples_come_before_the_end_is_known() {
    let mut opening = Opening::new(Channels::Mixed);
    opening.push(&Bytes::copy_from_slice(&FLAC[..FLAC.len() / 2]));
    let mut audio = loop {
        let begun = timeout(PATIENCE, opening.begun()).await.expect("in time").expect("begins");
        if let Some(audio) = begun {
            break audio;
        }
    };
    let mut out = [Vec::new()];
    while out[0].is_empty() {
        assert_eq!(timeout(PATIENCE, audio.more(&mut out)).await.expect("in time"), Ok(Came::More));
    }
}

#[tokio::test]
async fn a_recording_that_ends_before_its_stream_is_all_there_is() {
    let mut bytes = FLAC.to_vec();
    bytes.extend_from_slice(&[0; 5_000]);
    let (_, out) =
        timeout(PATIENCE, heard(&bytes, 1_000, Channels::Mixed)).await.expect("ends").expect("fine");
    assert!(out[0].len() >= 30_000, "{}", out[0].len());
}

/// Samples, in bytes, that come before a mark which was asked for behind so many bytes of a recording, and before the end.
async fn marked(bytes: &[u8], at: usize) -> [usize; 2] {
    let mut opening = Opening::new(Channels::Mixed);
    let (first, rest) = bytes.split_at(at);
    opening.push(&Bytes::copy_from_slice(first));
    let mut audio = loop {
        if let Some(audio) = opening.begun().await.expect("begins") {
            break audio;
        }
    };
    audio.mark();
    let (mut out, mut before, mut rest) = ([Vec::new()], None, Some(rest));
    loop {
        tokio::select! {
            more = audio.more(&mut out) => match more.expect("fine") {
                Came::More => {}
                Came::Mark => assert_eq!(before.replace(out[0].len()), None, "once"),
                Came::End => return [before.expect("comes before the end"), out[0].len()],
            },
            () = sent(), if audio.takes() && before.is_some() => match rest.take() {
                Some(rest) => audio.push(Bytes::copy_from_slice(rest)),
                None => audio.close(),
            },
        }
    }
}

#[tokio::test]
async fn a_mark_comes_behind_all_that_came_before_it_and_before_what_comes_after() {
    for (name, bytes) in [("flac", FLAC), ("mp3", MP3)] {
        let [before, all] = timeout(PATIENCE, marked(bytes, bytes.len() * 3 / 4)).await.expect("ends");
        // A frame whose end has not come is not decoded yet: a quarter of the FLAC's second.
        assert!((all / 5..all).contains(&before), "{name}: {before} of {all}");
    }
}

#[tokio::test]
async fn what_is_no_recording_or_has_no_samples_is_named() {
    for bytes in [&b""[..], b"RIFF", b"no recording of any kind that anybody knows", &wav(0)[..30]] {
        let error =
            timeout(PATIENCE, heard(bytes, 10, Channels::Mixed)).await.expect("ends").err().expect("refused");
        assert_eq!(error.code, ErrorCode::BadRequest, "{error:?}");
    }
}

#[tokio::test]
async fn audio_that_was_described_comes_at_once() {
    let format = AudioFormat { encoding: Encoding::PcmS16le, sample_rate: 16_000, channels: 2 };
    let mut audio = LiveAudio::described(format, Channels::Apart).expect("such audio");
    let mut out = vec![Vec::new(); audio.streams()];
    // A frame that comes in two messages.
    for message in [&[1, 0, 2][..], &[0, 3, 0, 4, 0]] {
        audio.push(Bytes::copy_from_slice(message));
        assert!(!audio.takes());
        assert_eq!(audio.more(&mut out).await, Ok(Came::More));
    }
    audio.mark();
    assert!(!audio.takes());
    assert_eq!(audio.more(&mut out).await, Ok(Came::Mark));
    audio.close();
    assert_eq!(audio.more(&mut out).await, Ok(Came::End));
    assert_eq!([samples(&out[0]), samples(&out[1])], [[1, 3], [2, 4]]);
}
