#include "core/golden.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "core/bundle_parts.h"

namespace trm {
namespace {

std::string_view next_part(std::string_view& text) {
    const size_t dot = std::min(text.find('.'), text.size());
    const std::string_view part = text.substr(0, dot);
    text.remove_prefix(std::min(dot + 1, text.size()));
    return part;
}

GoldenArray copy_of(const Tensor& tensor) {
    GoldenArray array{tensor.entry->dtype, tensor.entry->shape, std::vector<double>((tensor.bytes + 7) / 8), 1};
    if (tensor.bytes) std::memcpy(array.aligned.data(), tensor.data, tensor.bytes);
    for (const uint64_t n : array.shape) array.count *= n;
    return array;
}

}  // namespace

void read_golden(const std::vector<Tensor>& tensors, const std::string& stated, std::vector<GoldenCase>* cases) {
    const int count = plain_number(stated);
    std::set<int> complete;
    if (cases) cases->assign(static_cast<size_t>(std::max(count, 0)), {});
    for (const Tensor& tensor : tensors) {
        if (!starts_with(tensor.name, kGolden)) continue;
        std::string_view rest = tensor.name.substr(kGolden.size());
        const int number = plain_number(next_part(rest));
        const std::string_view way = next_part(rest);
        if (number < 0 || number >= count || (way != "in" && way != "out") || rest.empty()) {
            fail_tensor(tensor.name, "not one of the " + shown(stated) + " golden cases");
        }
        if (way == "out" && rest == "fp32_error") complete.insert(number);
        if (!cases) continue;
        GoldenCase& of = (*cases)[static_cast<size_t>(number)];
        (way == "in" ? of.in : of.out)[std::string(rest)] = copy_of(tensor);
    }
    if (count < 0 || complete.size() != static_cast<size_t>(count)) {
        fail("golden.cases is '" + shown(stated) + "', but the golden tensors do not say the same");
    }
}

}  // namespace trm
