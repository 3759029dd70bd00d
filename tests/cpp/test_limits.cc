#include <doctest/doctest.h>

#include <cfenv>
#include <cmath>
#include <random>
#include <vector>

#include "trm_edge/trm_edge.h"

namespace {

// In double, where sums and differences of floats are as good as exact.
bool within(const std::vector<float>& a, int T, int dof, const float* lo, const float* hi, const float* v,
            const float* last) {
    for (int t = 0; t < T; ++t) {
        for (int d = 0; d < dof; ++d) {
            const double now = a[static_cast<size_t>(t * dof + d)];
            if (!(now >= lo[d] && now <= hi[d])) return false;
            const float* before = t ? &a[static_cast<size_t>((t - 1) * dof)] : last;
            if (before && !(std::fabs(now - static_cast<double>(before[d])) <= v[d])) return false;
        }
    }
    return true;
}

}  // namespace

TEST_CASE("random chunks end inside bounds and velocity, exactly, and stay when projected again") {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::uniform_real_distribution<float> unit(0.0f, 1.0f);
    for (int trial = 0; trial < 20000; ++trial) {
        const int T = 1 + trial % 17, dof = 1 + trial % 5;
        const float scale = std::ldexp(1.0f, static_cast<int>(random() % 80) - 40);
        std::vector<float> lo, hi, v, last, a;
        for (int d = 0; d < dof; ++d) {
            lo.push_back(-scale * (0.1f + unit(random)));
            hi.push_back(scale * (0.1f + unit(random)));
            v.push_back(scale * (0.001f + unit(random)));
            last.push_back(lo.back() + unit(random) * (hi.back() - lo.back()));
            last.back() = std::fmin(std::fmax(last.back(), lo.back()), hi.back());
        }
        for (int i = 0; i < T * dof; ++i) a.push_back(3 * scale * normal(random));
        const float* start = trial % 2 ? last.data() : nullptr;
        REQUIRE(trm_project_limits(a.data(), T, dof, lo.data(), hi.data(), v.data(), start) == TRM_OK);
        REQUIRE(within(a, T, dof, lo.data(), hi.data(), v.data(), start));
        const std::vector<float> once = a;
        REQUIRE(trm_project_limits(a.data(), T, dof, lo.data(), hi.data(), v.data(), start) == TRM_OK);
        REQUIRE(a == once);
    }
}

TEST_CASE("a chunk inside the limits is untouched") {
    std::vector<float> a{0.1f, 0.2f, 0.3f, 0.25f};
    const std::vector<float> before = a;
    const float lo = -1, hi = 1, v = 0.11f, last = 0.0f;
    CHECK(trm_project_limits(a.data(), 4, 1, &lo, &hi, &v, &last) == TRM_OK);
    CHECK(a == before);
}

TEST_CASE("from outside the bounds the answer approaches them at the velocity limit, and says so") {
    std::vector<float> a{0, 0, 0, 0, 0};
    const float lo = -1, hi = 1, v = 0.5f, last = 2.25f;
    CHECK(trm_project_limits(a.data(), 5, 1, &lo, &hi, &v, &last) == TRM_OUTSIDE_LIMITS);
    CHECK(a == std::vector<float>{1.75f, 1.25f, 0.75f, 0.25f, 0.0f});
    const std::vector<float> once = a;
    CHECK(trm_project_limits(a.data(), 5, 1, &lo, &hi, &v, &last) == TRM_OUTSIDE_LIMITS);
    CHECK(a == once);
    std::vector<float> below{0, 0, 0};
    const float under = -2.0f;
    CHECK(trm_project_limits(below.data(), 3, 1, &lo, &hi, &v, &under) == TRM_OUTSIDE_LIMITS);
    CHECK(below == std::vector<float>{-1.5f, -1.0f, -0.5f});
}

TEST_CASE("a move that the velocity misses by less than double resolves is too long") {
    std::vector<float> a{5}, b{-5};
    const float v = 1, last = -1e-30f, other = 1e-30f;
    CHECK(trm_project_limits(a.data(), 1, 1, nullptr, nullptr, &v, &last) == TRM_OK);
    CHECK(trm_project_limits(b.data(), 1, 1, nullptr, nullptr, &v, &other) == TRM_OK);
    CHECK(a[0] == std::nextafter(1.0f, 0.0f));
    CHECK(b[0] == -a[0]);
}

TEST_CASE("limits that are left out do not limit") {
    std::vector<float> a{100, -100};
    CHECK(trm_project_limits(a.data(), 2, 1, nullptr, nullptr, nullptr, nullptr) == TRM_OK);
    CHECK(a == std::vector<float>{100, -100});
    const float hi = 1;
    CHECK(trm_project_limits(a.data(), 2, 1, nullptr, &hi, nullptr, nullptr) == TRM_OK);
    CHECK(a == std::vector<float>{1, -100});
    const float v = 2;
    CHECK(trm_project_limits(a.data(), 2, 1, nullptr, nullptr, &v, nullptr) == TRM_OK);
    CHECK(a == std::vector<float>{1, -1});
    CHECK(trm_project_limits(a.data(), 0, 1, nullptr, nullptr, &v, nullptr) == TRM_OK);
    CHECK(trm_project_limits(nullptr, 0, 0, nullptr, nullptr, nullptr, nullptr) == TRM_OK);
}

TEST_CASE("limits that are left out raise no floating-point exception") {
    const float lower = -1, upper = 1, last = 0;
    for (const float* bound : {static_cast<const float*>(nullptr), &lower}) {
        float actions[] = {0.5f, 3.0f};
        std::feclearexcept(FE_ALL_EXCEPT);
        REQUIRE(trm_project_limits(actions, 2, 1, bound, bound ? &upper : nullptr, nullptr, &last) == TRM_OK);
        CHECK(std::fetestexcept(FE_INVALID | FE_OVERFLOW | FE_DIVBYZERO) == 0);
    }
}

TEST_CASE("the largest floats do not overflow") {
    const float big = 3.0e38f;
    std::vector<float> a{big, -big, big};
    CHECK(trm_project_limits(a.data(), 3, 1, nullptr, nullptr, &big, &big) == TRM_OK);
    for (const float value : a) CHECK(std::isfinite(value));
    CHECK(a[1] == 0.0f);
}

TEST_CASE("wrong arguments change nothing and say why") {
    const float nan = std::nanf(""), one = 1, zero = 0, minus = -1;
    std::vector<float> a{nan};
    CHECK(trm_project_limits(a.data(), 1, 1, nullptr, nullptr, nullptr, nullptr) == TRM_INVALID_ARGUMENT);
    CHECK(std::string(trm_last_message()).find("actions") != std::string::npos);
    a[0] = 5;
    CHECK(trm_project_limits(a.data(), 1, 1, &one, &minus, nullptr, nullptr) == TRM_INVALID_ARGUMENT);
    CHECK(trm_project_limits(a.data(), 1, 1, nullptr, nullptr, &zero, nullptr) == TRM_INVALID_ARGUMENT);
    CHECK(trm_project_limits(a.data(), 1, 1, nullptr, nullptr, &nan, nullptr) == TRM_INVALID_ARGUMENT);
    CHECK(trm_project_limits(a.data(), 1, 1, &nan, nullptr, nullptr, nullptr) == TRM_INVALID_ARGUMENT);
    CHECK(trm_project_limits(a.data(), 1, 1, nullptr, nullptr, nullptr, &nan) == TRM_INVALID_ARGUMENT);
    CHECK(trm_project_limits(a.data(), -1, 1, nullptr, nullptr, nullptr, nullptr) == TRM_INVALID_ARGUMENT);
    CHECK(trm_project_limits(nullptr, 1, 1, nullptr, nullptr, nullptr, nullptr) == TRM_INVALID_ARGUMENT);
    CHECK(trm_project_limits(a.data(), 1, (1 << 20) + 1, nullptr, nullptr, nullptr, nullptr) == TRM_INVALID_ARGUMENT);
    CHECK(std::string(trm_last_message()).find("shape in 0..1048576, got [1, 1048577]") != std::string::npos);
    CHECK(trm_project_limits(a.data(), 1 << 20, 4096, nullptr, nullptr, nullptr, nullptr) == TRM_INVALID_ARGUMENT);
    CHECK(std::string(trm_last_message()).find("T * dof of at most 2147483648, got 1048576 * 4096") !=
          std::string::npos);
    CHECK(a[0] == 5);
}

TEST_CASE("limits: arrays that are not aligned are refused by name") {
    alignas(float) char bytes[3 * sizeof(float)] = {};
    auto* odd = reinterpret_cast<float*>(bytes + 2);
    float fine[2] = {0, 0};
    const auto refused = [](const char* name, float* a, float* lo, float* hi, float* v, float* last) {
        CHECK(trm_project_limits(a, 1, 2, lo, hi, v, last) == TRM_INVALID_ARGUMENT);
        CHECK(std::string(trm_last_message()) == std::string(name) + ": expected data aligned to 4 bytes");
    };
    refused("actions", odd, nullptr, nullptr, nullptr, nullptr);
    refused("lower", fine, odd, nullptr, nullptr, nullptr);
    refused("upper", fine, nullptr, odd, nullptr, nullptr);
    refused("velocity", fine, nullptr, nullptr, odd, nullptr);
    refused("last_action", fine, nullptr, nullptr, nullptr, odd);
}
