//! Korean test recordings. No free recording of Korean comes with a package, so they are synthesized: poor as speech,
//! but the same every time, which is what failover tests compare.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use starling_engine::catalogue::{Home, resample};

use super::get;

pub(super) const SYNTHESIZER: &str = "espeak-ng";

const SCRIPT: &str = include_str!("speech.py");
const VOICE: &str = "ko";
const RATE_HZ: u32 = 16_000;

/// Raised whenever the same sentences would give other recordings.
const RECIPE: &str = "espeakng-loader 0.2.4, voice ko, recipe 1";

/// Silence between two sentences of the long recording, in samples: 0.7 s, which ends an utterance.
const PAUSE_SAMPLES: usize = 11_200;

/// How many of the sentences are recordings of their own; the long one has all.
const CLIPS: usize = 12;

const SENTENCES: [&str; 18] = [
    "안녕하세요 오늘은 날씨가 참 좋습니다",
    "저는 어제 친구와 함께 영화를 보러 갔습니다",
    "내일 아침 아홉 시에 회의가 있으니 늦지 마세요",
    "이 식당의 비빔밥은 정말 맛있다고 들었습니다",
    "지하철을 타고 서울역에서 내리면 됩니다",
    "우리 가족은 여름마다 바다로 여행을 갑니다",
    "도서관에서 책을 세 권 빌려 왔습니다",
    "전화번호를 알려 주시면 나중에 연락드리겠습니다",
    "요즘 한국어를 배우는 사람들이 많아졌습니다",
    "비가 많이 와서 길이 미끄러우니 조심하세요",
    "주말에는 집에서 음악을 들으면서 쉬고 싶어요",
    "은행은 오후 네 시 반에 문을 닫습니다",
    "할머니께서는 시골에서 채소를 기르고 계십니다",
    "새로 나온 책이 생각보다 훨씬 재미있었습니다",
    "버스를 놓쳐서 약속 시간에 삼십 분이나 늦었어요",
    "감기에 걸렸을 때는 따뜻한 물을 많이 드세요",
    "다음 달에 동생이 대학교를 졸업합니다",
    "창문을 열어 두었더니 방 안이 조금 시원해졌습니다",
];

/// Makes `audio/ko/ko-1.wav` to `ko-12.wav`, `ko-long.wav` with all of them in turn, and `transcripts.tsv`.
pub(super) fn korean(home: &Home) -> Result<()> {
    let dir = home.audio_dir().join("ko");
    let list = dir.join("transcripts.tsv");
    let transcripts = transcripts();
    if std::fs::read_to_string(&list).is_ok_and(|made| made == transcripts) {
        eprintln!("Korean recordings are there: {}", dir.display());
        return Ok(());
    }
    let clips = speak(home)?;
    std::fs::create_dir_all(&dir)?;
    let mut long = Vec::new();
    for (index, clip) in clips.iter().enumerate() {
        if index < CLIPS {
            write_wav(&dir.join(format!("ko-{}.wav", index + 1)), clip)?;
        }
        long.extend_from_slice(clip);
        long.extend(std::iter::repeat_n(0, PAUSE_SAMPLES));
    }
    write_wav(&dir.join("ko-long.wav"), &long)?;
    std::fs::write(&list, transcripts)?;
    eprintln!("Korean recordings made: {} ({} s in all)", dir.display(), long.len() / RATE_HZ as usize);
    Ok(())
}

/// Written last, so that its being there with this very content says that the recordings are whole.
fn transcripts() -> String {
    let clips = SENTENCES[..CLIPS].iter().enumerate().map(|(i, text)| format!("ko-{}.wav\t{text}\n", i + 1));
    let long = SENTENCES.join(" ");
    format!("# {RECIPE}\n{}ko-long.wav\t{long}\n", clips.collect::<String>())
}

/// All sentences at 16 kHz.
fn speak(home: &Home) -> Result<Vec<Vec<i16>>> {
    get(home, SYNTHESIZER).context("cannot get the speech synthesizer for the Korean recordings")?;
    let tool = home.tools_dir().join(SYNTHESIZER);
    let mut child = Command::new("python3")
        .args(["-c", SCRIPT])
        .arg(tool.join("libespeak-ng.so.1"))
        .arg(&tool)
        .arg(VOICE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(
            "cannot start python3 to run the speech synthesizer; on Debian and Ubuntu: apt install python3",
        )?;
    // A few hundred bytes: they fit the pipe whole, whatever the other side does.
    let text = SENTENCES.join("\n") + "\n";
    child.stdin.take().context("no pipe to python3")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("the speech synthesizer failed ({})", output.status);
    }
    let clips = parse(&output.stdout).context("the speech synthesizer's output is cut short")?;
    ensure!(clips.len() == SENTENCES.len(), "{} of {} sentences were spoken", clips.len(), SENTENCES.len());
    Ok(clips.into_iter().map(|(rate_hz, samples)| resample(&samples, rate_hz, RATE_HZ)).collect())
}

/// The recordings as `speech.py` writes them, each with its rate in Hz.
fn parse(mut bytes: &[u8]) -> Option<Vec<(u32, Vec<i16>)>> {
    let mut clips = Vec::new();
    while !bytes.is_empty() {
        let (count, rest) = bytes.split_first_chunk::<4>()?;
        let (rate_hz, rest) = rest.split_first_chunk::<4>()?;
        let (pcm, rest) = rest.split_at_checked(u32::from_le_bytes(*count) as usize * 2)?;
        let samples = pcm.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        clips.push((u32::from_le_bytes(*rate_hz), samples));
        bytes = rest;
    }
    Some(clips)
}

fn write_wav(path: &Path, samples: &[i16]) -> Result<()> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: RATE_HZ,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let write = || -> hound::Result<()> {
        let mut writer = hound::WavWriter::create(path, spec)?;
        for sample in samples {
            writer.write_sample(*sample)?;
        }
        writer.finalize()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_are_read_and_a_cut_one_is_noticed() {
        let mut bytes = vec![2, 0, 0, 0, 0x80, 0x3e, 0, 0, 1, 0, 0xff, 0xff];
        bytes.extend([0, 0, 0, 0, 0x22, 0x56, 0, 0]);
        assert_eq!(parse(&bytes), Some(vec![(16_000, vec![1, -1]), (22_050, vec![])]));
        assert_eq!(parse(&bytes[..11]), None);
    }

    #[test]
    fn every_sentence_is_in_the_list() {
        assert_eq!(transcripts().lines().count(), CLIPS + 2);
        assert!(SENTENCES.iter().all(|text| transcripts().contains(text)));
    }
}
