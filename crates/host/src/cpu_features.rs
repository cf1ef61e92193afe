//! What programs can find out about the processor they run on.

macro_rules! features {
    ($($name:tt)*) => {
        [$(($name, std::is_x86_feature_detected!($name))),*]
    };
}

/// The features of this processor that programs choose their code by, by name.
#[must_use]
pub fn features() -> Vec<String> {
    let all = features!(
        "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "movbe" "lzcnt" "aes" "pclmulqdq" "rdrand" "rdseed" "avx" "avx2" "fma" "f16c"
        "bmi1" "bmi2" "adx" "sha" "xsave" "xsaveopt" "xsavec" "cmpxchg16b" "avx512f" "avx512dq" "avx512cd" "avx512bw" "avx512vl"
        "avx512ifma" "avx512vbmi" "avx512vbmi2" "avx512vnni" "avx512bitalg" "avx512vpopcntdq" "avx512bf16" "vaes" "vpclmulqdq" "gfni"
    );
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
}

/// What of `wanted` this processor lacks.
#[must_use]
pub fn missing(wanted: &[String]) -> Vec<String> {
    let here = features();
    wanted.iter().filter(|name| !here.contains(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_is_not_missing() {
        assert!(missing(&features()).is_empty());
        assert_eq!(missing(&["warp".into()]), ["warp"]);
    }
}
