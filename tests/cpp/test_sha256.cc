// SHA-256 against the examples of FIPS 180-4 and against Python's hashlib.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/sha256.h"

namespace {

std::string digest(const std::string& message) {
    trm::Sha256 hash;
    hash.update(message.data(), message.size());
    return hash.finish();
}

struct Expected {
    size_t length;
    const char* digest;
};

// hashlib.sha256(bytes((7 * i + n) % 251 for i in range(n))).hexdigest() for lengths n around the block size and random
// ones.
const Expected kHashlib[] = {
    {0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {1, "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"},
    {3, "6ab0dba1f4f1dfbb37b4f9eeb092c09fca4900ad32bdcd147d8dde35d6c87c35"},
    {55, "d604dc83c754bb5890ec011f3fa0552324cb1412205b5a5e83fd17cd4afe57ed"},
    {56, "0371e3fd4911ce4109ac9aaddc0ebdfe28431802ef70a966cb245da585f2a37e"},
    {57, "bdce47d7bad9c7849a36531ae5ac19e3c4413c87c20f5d00ccda7dcd7c57bdb1"},
    {63, "de8f546e5d44d4fb35d25af2748ed9b6644d200d56b6b0b6e71b095b44348dc6"},
    {64, "35eb8c80b4af970a05040dd151d5edad6172957c1ded27e521fdcf526178feb3"},
    {65, "c96988663bcd3779da5b1c0e499742ff48bf6148d5c044326ce3e5845a80e6ab"},
    {119, "7fb3869648ad8420f2e1a20812a61ba45c3db01dc7b391d48c2a8c1d6f41be35"},
    {120, "9db2bb35e3e98f502b654e82f0051eebfa45015e36ed8c3a28d44586eff7372b"},
    {127, "f2a5ec436d60185c6d1c274da6d60d8e38d7de6b739c0fbd043d0de24db2b7ad"},
    {128, "086e64af3be4bef59202dea267776bbbbe6264ad9ff0b46345743fffc446238e"},
    {129, "e565f4d90d1ed354380468d6d343eb77934d2362da37e18371bfc631691f5cab"},
    {351, "eed760760a2c5c019d1eca7abf8bea79886f5b550a9b81fd2be45bf434154f41"},
    {961, "fecb1388f5e295a784d8db1a0e48616de2ece0f3891ab205a75446e76d0b5c2e"},
    {1368, "5cbf2bac3df0f0fec76a7d37a2d9de2d4ad1461e864806966f29074f2d57e9b0"},
    {1517, "115e211f035d02f4ca41ea15f0e23c6f8b59339a395f92edb0d6335f9a85aa41"},
    {2258, "c02649adf04b1f2ca697bc2968ac4c082f718bf7812551bf4f31688a01fe4ad0"},
    {2812, "2a8fa107960067a2346fe2d4a07b70131c1d804e95285c9e4fa9079fd662aa4d"},
    {3462, "7966324be43fc27ea45f11e6d59c7cbb65d82c178f08e62cf8db71a98740c59b"},
    {3501, "001b0fc6c22fb682af9e2790643ed985e0162a46776d4229c57c2c840e6c6b31"},
    {4823, "877ee0cbc9935010a053551aefdcf363ad4eae21684e85349fd8d43a9032bbdd"},
    {65537, "57f8935689361d05ffb390fcf7131943b2b53b82c200ca0fb35ed568aca29e85"},
};

std::vector<unsigned char> message_of(size_t n) {
    std::vector<unsigned char> message(n);
    for (size_t i = 0; i < n; ++i) message[i] = static_cast<unsigned char>((7 * i + n) % 251);
    return message;
}

}  // namespace

TEST_CASE("sha256: NIST examples") {
    CHECK(digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(digest(
              "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrst"
              "nopqrstu") == "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
    CHECK(digest(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("sha256: lengths around the block, as hashlib has them") {
    for (const Expected& expected : kHashlib) {
        CAPTURE(expected.length);
        const std::vector<unsigned char> message = message_of(expected.length);
        trm::Sha256 hash;
        hash.update(message.data(), message.size());
        CHECK(hash.finish() == expected.digest);
    }
}

TEST_CASE("sha256: the pieces of a message do not matter") {
    for (const Expected& expected : kHashlib) {
        const std::vector<unsigned char> message = message_of(expected.length);
        for (const size_t piece : {size_t{1}, size_t{13}, size_t{64}, size_t{100}}) {
            CAPTURE(expected.length);
            CAPTURE(piece);
            trm::Sha256 hash;
            for (size_t at = 0; at < message.size(); at += piece) {
                hash.update(message.data() + at, std::min(piece, message.size() - at));
            }
            CHECK(hash.finish() == expected.digest);
        }
    }
}
