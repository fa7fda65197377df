//! What pins the numbers an engine computes to a class of machines.
//!
//! Owns: the CPU class, and the environment that makes OpenBLAS (inside libvosk) choose its kernels by that class. OpenBLAS
//! reads its variables when the library is opened, so they have to be there before. Must never: change the environment
//! of a process that has threads; `starling-decoder` runs itself again with it instead.

/// Environment that OpenBLAS reads: one thread (decode threads are ours), and kernels by [`cpu_class`].
#[must_use]
pub fn blas_environment() -> [(&'static str, &'static str); 2] {
    [("OPENBLAS_NUM_THREADS", "1"), ("OPENBLAS_CORETYPE", blas_core())]
}

/// The CPU's class, as far as it decides which arithmetic kernels run. Two machines of one class compute the same numbers.
#[must_use]
pub fn cpu_class() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512vnni") {
            return "x86-avx512vnni";
        }
        if std::is_x86_feature_detected!("avx512f") {
            return "x86-avx512";
        }
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            return "x86-avx2";
        }
        if std::is_x86_feature_detected!("avx") {
            return "x86-avx";
        }
        "x86-sse"
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::env::consts::ARCH
    }
}

/// The OpenBLAS core this machine is pinned to. Everything with AVX2 runs the Haswell kernels, AVX-512 machines too:
/// the models are small, and a mixed fleet then is one class.
#[must_use]
pub fn blas_core() -> &'static str {
    match cpu_class() {
        "x86-avx512vnni" | "x86-avx512" | "x86-avx2" => "Haswell",
        "x86-avx" => "Sandybridge",
        "x86-sse" => "Nehalem",
        _ => "ARMV8",
    }
}
