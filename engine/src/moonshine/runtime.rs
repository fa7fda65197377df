//! ONNX Runtime, opened at run time, and sessions that several threads may want at once.
//!
//! Owns: the process's one runtime environment, and the settings of every session. Must never: start threads of the
//! runtime's own: decode threads are the host's.
#![allow(unsafe_code)] // The library's version is asked through its C interface.

use std::ffi::{CStr, c_char, c_void};
use std::fmt::Display;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::session::Session;

use crate::{DecodeError, LoadError};

/// ONNX Runtime allows one environment in a process, so the first library that is opened stays.
static ENVIRONMENT: OnceLock<Result<(Environment, String), String>> = OnceLock::new();

/// The opened library.
#[derive(Clone, Copy)]
pub(super) struct Runtime {
    environment: &'static Environment,
    version: &'static str,
}

impl Runtime {
    pub(super) fn open(path: &Path) -> Result<Self, LoadError> {
        let opened = ENVIRONMENT.get_or_init(|| {
            let version = version(path).map_err(|error| error.to_string())?;
            let builder = ort::init_from(path).map_err(|error| error.to_string())?;
            let builder = builder.with_name("starling").with_telemetry(false);
            builder.build().map(|environment| (environment, version)).map_err(|error| error.to_string())
        });
        match opened {
            Ok((environment, version)) => Ok(Self { environment, version }),
            Err(problem) => Err(LoadError::Library {
                what: "ONNX Runtime",
                path: path.display().to_string(),
                problem: problem.clone(),
            }),
        }
    }

    /// The library's version.
    pub(super) const fn version(self) -> &'static str {
        self.version
    }
}

/// `OrtApiBase` of `onnxruntime_c_api.h`, the one structure that no version has changed.
#[repr(C)]
struct ApiBase {
    get_api: unsafe extern "C" fn(u32) -> *const c_void,
    get_version: unsafe extern "C" fn() -> *const c_char,
}

fn version(path: &Path) -> Result<String, libloading::Error> {
    // SAFETY: opening runs the library's initialisers; it is the file the operator installed, by its full path. `ort` opens
    // it again, which only counts.
    let library = unsafe { libloading::Library::new(path) }?;
    // SAFETY: the type is that of onnxruntime_c_api.h.
    let base = unsafe { library.get::<unsafe extern "C" fn() -> *const ApiBase>(c"OrtGetApiBase") }?;
    // SAFETY: it returns a static structure, whose second function returns a static, zero-terminated string.
    let version = unsafe { CStr::from_ptr(((*base()).get_version)()) };
    Ok(version.to_string_lossy().into_owned())
}

/// One model's sessions: as many as threads have ever run it at the same time. A session may be run by one thread at a time.
pub(super) struct Sessions {
    runtime: Runtime,
    model: Vec<u8>,
    path: String,
    idle: Mutex<Vec<Session>>,
}

impl Sessions {
    /// Loads a model's file and makes the first session.
    pub(super) fn load(runtime: Runtime, path: &Path) -> Result<Self, LoadError> {
        let problem = |problem: String| LoadError::Model { path: path.display().to_string(), problem };
        let model = std::fs::read(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
        let sessions =
            Self { runtime, model, path: path.display().to_string(), idle: Mutex::new(Vec::new()) };
        let first = sessions.make().map_err(|error| problem(error.to_string()))?;
        sessions.idle.lock().unwrap_or_else(PoisonError::into_inner).push(first);
        Ok(sessions)
    }

    /// The names of the model's inputs.
    pub(super) fn inputs(&self) -> Vec<String> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let inputs = idle.first().map(Session::inputs).unwrap_or_default();
        inputs.iter().map(|input| input.name().to_owned()).collect()
    }

    /// Lends a session.
    pub(super) fn with<T>(
        &self,
        body: impl FnOnce(&mut Session) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut session = match idle {
            Some(session) => session,
            None => self.make().map_err(failed)?,
        };
        let result = body(&mut session);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        result
    }

    fn make(&self) -> ort::Result<Session> {
        let mut builder = Session::builder(self.runtime.environment)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            // A spinning thread takes a core from another stream.
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            // Plans are kept for each length of audio otherwise, and every segment has another.
            .with_memory_pattern(false)?;
        if Path::new(&self.path).extension().is_some_and(|extension| extension == "ort") {
            builder = builder.with_config_entry("session.load_model_format", "ORT")?;
        }
        builder.commit_from_memory(&self.model)
    }
}

/// An error of the runtime while it decodes.
pub(super) fn failed(error: impl Display) -> DecodeError {
    DecodeError::Engine { engine: "moonshine", problem: error.to_string() }
}

/// An output that is not there or has another shape.
pub(super) fn unexpected(problem: impl Into<String>) -> DecodeError {
    DecodeError::Answer { engine: "moonshine", problem: problem.into() }
}
