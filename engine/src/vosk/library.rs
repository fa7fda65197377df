//! libvosk behind handles that can't be misused.
//!
//! Owns: every call into the library. Must never: panic on what it answers, or free what is in use.
#![allow(unsafe_code)] // A C library opened at run time.

use std::ffi::{CStr, CString, c_char, c_float, c_int, c_short};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::{DecodeError, LoadError, OpenError};

#[repr(C)]
struct VoskModel {
    _opaque: [u8; 0],
}

#[repr(C)]
struct VoskRecognizer {
    _opaque: [u8; 0],
}

type Text = unsafe extern "C" fn(*mut VoskRecognizer) -> *const c_char;

/// The functions used, as `vosk_api.h` of 0.3.45 declares them. The library is never closed: its threads and thread-local
/// data would outlive its code.
pub(super) struct Library {
    model_new: unsafe extern "C" fn(*const c_char) -> *mut VoskModel,
    model_free: unsafe extern "C" fn(*mut VoskModel),
    model_find_word: unsafe extern "C" fn(*mut VoskModel, *const c_char) -> c_int,
    recognizer_new: unsafe extern "C" fn(*mut VoskModel, c_float) -> *mut VoskRecognizer,
    recognizer_new_grm: unsafe extern "C" fn(*mut VoskModel, c_float, *const c_char) -> *mut VoskRecognizer,
    recognizer_free: unsafe extern "C" fn(*mut VoskRecognizer),
    set_words: unsafe extern "C" fn(*mut VoskRecognizer, c_int),
    set_max_alternatives: unsafe extern "C" fn(*mut VoskRecognizer, c_int),
    accept_waveform_s: unsafe extern "C" fn(*mut VoskRecognizer, *const c_short, c_int) -> c_int,
    partial_result: Text,
    final_result: Text,
    #[cfg(feature = "measure")]
    result: Text,
}

impl Library {
    pub(super) fn open(path: &Path) -> Result<Self, LoadError> {
        let failed = |error: libloading::Error| LoadError::Library {
            what: "Vosk",
            path: path.display().to_string(),
            problem: error.to_string(),
        };
        // SAFETY: opening runs the library's initialisers; it is the file the operator installed, by its full path.
        let library = unsafe { libloading::Library::new(path) }.map_err(failed)?;
        macro_rules! function {
            ($name:literal) => {{
                // SAFETY: the field's type is the declaration in vosk_api.h; the library stays open for ever (below), so
                // the copied pointer stays valid.
                *unsafe { library.get($name) }.map_err(failed)?
            }};
        }
        let set_log_level: unsafe extern "C" fn(c_int) = function!(c"vosk_set_log_level");
        let opened = Self {
            model_new: function!(c"vosk_model_new"),
            model_free: function!(c"vosk_model_free"),
            model_find_word: function!(c"vosk_model_find_word"),
            recognizer_new: function!(c"vosk_recognizer_new"),
            recognizer_new_grm: function!(c"vosk_recognizer_new_grm"),
            recognizer_free: function!(c"vosk_recognizer_free"),
            set_words: function!(c"vosk_recognizer_set_words"),
            set_max_alternatives: function!(c"vosk_recognizer_set_max_alternatives"),
            accept_waveform_s: function!(c"vosk_recognizer_accept_waveform_s"),
            partial_result: function!(c"vosk_recognizer_partial_result"),
            final_result: function!(c"vosk_recognizer_final_result"),
            #[cfg(feature = "measure")]
            result: function!(c"vosk_recognizer_result"),
        };
        std::mem::forget(library);
        // SAFETY: takes any number; -1 leaves warnings and errors.
        unsafe { set_log_level(-1) };
        Ok(opened)
    }
}

/// A loaded model. libvosk counts references itself; recognizers keep theirs beside ours.
pub(super) struct Model {
    library: Arc<Library>,
    model: NonNull<VoskModel>,
}

// SAFETY: libvosk's model is read-only after loading and its reference count is atomic; recognizers of several threads
// share it by design.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Model {
    /// Loads a folder that [`super::model::check`] has found fit.
    pub(super) fn load(library: Arc<Library>, folder: &Path) -> Result<Self, LoadError> {
        let problem = |problem: &str| LoadError::Model {
            path: folder.display().to_string(),
            problem: problem.to_owned(),
        };
        let path = CString::new(folder.as_os_str().as_bytes())
            .map_err(|_| problem("the path has a zero byte in it"))?;
        // SAFETY: a zero-terminated string that lives through the call.
        let model = unsafe { (library.model_new)(path.as_ptr()) };
        let model = NonNull::new(model).ok_or_else(|| problem("libvosk can't load this model"))?;
        Ok(Self { library, model })
    }

    /// Whether the vocabulary has a word.
    pub(super) fn knows(&self, word: &str) -> bool {
        let Ok(word) = CString::new(word) else { return false };
        // SAFETY: a live model and a zero-terminated string.
        unsafe { (self.library.model_find_word)(self.model.as_ptr(), word.as_ptr()) >= 0 }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: ours, and recognizers hold an Arc of self: none is left.
        unsafe { (self.library.model_free)(self.model.as_ptr()) }
    }
}

/// One native recognizer.
pub(super) struct Recognizer {
    model: Arc<Model>,
    recognizer: NonNull<VoskRecognizer>,
}

// SAFETY: a recognizer has no thread-local state; it may be used from any thread, from one at a time (`&mut self`).
unsafe impl Send for Recognizer {}

impl Recognizer {
    /// `rate` in Hz, checked by the engine's load.
    pub(super) fn open(model: &Arc<Model>, rate: u32) -> Result<Self, OpenError> {
        // SAFETY: a live model and a rate in the range that the library takes.
        let recognizer = unsafe { (model.library.recognizer_new)(model.model.as_ptr(), rate as c_float) };
        Self::take(model, recognizer)
    }

    /// `phrases` checked by the engine: not empty, none empty, at least one known word.
    pub(super) fn open_with_phrases(
        model: &Arc<Model>,
        rate: u32,
        phrases: &[String],
    ) -> Result<Self, OpenError> {
        let refused = |problem: String| OpenError::Engine { engine: "vosk", problem };
        let list = serde_json::to_string(phrases).map_err(|error| refused(error.to_string()))?;
        let list = CString::new(list).map_err(|error| refused(error.to_string()))?;
        // SAFETY: a live model, a checked rate, a zero-terminated JSON list of strings.
        let recognizer = unsafe {
            (model.library.recognizer_new_grm)(model.model.as_ptr(), rate as c_float, list.as_ptr())
        };
        Self::take(model, recognizer)
    }

    fn take(model: &Arc<Model>, recognizer: *mut VoskRecognizer) -> Result<Self, OpenError> {
        let recognizer = NonNull::new(recognizer).ok_or_else(|| OpenError::Engine {
            engine: "vosk",
            problem: "libvosk returned none, for a reason that it logged".to_owned(),
        })?;
        Ok(Self { model: Arc::clone(model), recognizer })
    }

    /// Both are plain fields in the library and may be set whenever no result is being made.
    pub(super) fn set_options(&self, words: bool, alternatives: u8) {
        // SAFETY: a live recognizer.
        unsafe {
            (self.model.library.set_words)(self.recognizer.as_ptr(), c_int::from(words));
            (self.model.library.set_max_alternatives)(self.recognizer.as_ptr(), c_int::from(alternatives));
        }
    }

    /// Whether the engine hears an endpoint at the end of these samples.
    pub(super) fn accept(&mut self, samples: &[i16]) -> Result<bool, DecodeError> {
        let failed = |problem: &str| DecodeError::Engine { engine: "vosk", problem: problem.to_owned() };
        let length = c_int::try_from(samples.len()).map_err(|_| failed("a step of over 2^31 samples"))?;
        // SAFETY: a live recognizer, and `length` samples at the pointer.
        let answer = unsafe {
            (self.model.library.accept_waveform_s)(self.recognizer.as_ptr(), samples.as_ptr(), length)
        };
        match answer {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(failed("libvosk threw while it decoded")),
        }
    }

    pub(super) fn partial_result(&mut self) -> Result<String, DecodeError> {
        // SAFETY: see `read`.
        unsafe { self.read(self.model.library.partial_result) }
    }

    pub(super) fn final_result(&mut self) -> Result<String, DecodeError> {
        // SAFETY: see `read`.
        unsafe { self.read(self.model.library.final_result) }
    }

    /// Ends the utterance and keeps the adaptation.
    #[cfg(feature = "measure")]
    pub(super) fn result(&mut self) -> Result<String, DecodeError> {
        // SAFETY: see `read`.
        unsafe { self.read(self.model.library.result) }
    }

    /// # Safety
    /// `function` is one of the library's that give a recognizer's result.
    unsafe fn read(&self, function: Text) -> Result<String, DecodeError> {
        // SAFETY: a live recognizer; the answer is its own zero-terminated string, valid until the next call on it, and is
        // copied before that.
        let text = unsafe { function(self.recognizer.as_ptr()) };
        if text.is_null() {
            let problem = "libvosk gave no result".to_owned();
            return Err(DecodeError::Answer { engine: "vosk", problem });
        }
        // SAFETY: not null, see above.
        Ok(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }
}

impl Drop for Recognizer {
    fn drop(&mut self) {
        // SAFETY: ours alone.
        unsafe { (self.model.library.recognizer_free)(self.recognizer.as_ptr()) }
    }
}
