// A program as C++: the texts of its rows with names in place of a, b, r, k and f, and of the world no more
// than is named.
#include <cctype>
#include <map>
#include <set>

#include "tests/tracer/oracle/world.h"

namespace oracle {

namespace {

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

/// Calls f(token) for words and for everything between; numbers with their suffixes are one token.
template <class F>
void for_tokens(const std::string& text, F&& f) {
  for (size_t i = 0, end; i < text.size(); i = end) {
    end = i + 1;
    if (is_word(text[i])) {
      const bool digit = std::isdigit(static_cast<unsigned char>(text[i]));
      while (end < text.size() && (is_word(text[end]) || (digit && text[end] == '.'))) ++end;
    } else if (text[i] == '"') {
      while (end < text.size() && text[end] != '"') ++end;
      end = std::min(end + 1, text.size());
    }
    f(text.substr(i, end - i));
  }
}

std::string replaced(const std::string& text, const std::map<std::string, std::string>& names) {
  std::string out;
  for_tokens(text, [&](const std::string& token) {
    const auto known = names.find(token);
    out += known == names.end() ? token : known->second;
  });
  return out;
}

std::string number(float f) {
  std::string text = std::to_string(f);
  while (text.back() == '0') text.pop_back();
  return text + "f";
}

struct Text {
  const char* name;
  std::string declaration, set_up;
};
const Text kStates[] = {
#define STATE(name, declaration, ...) {#name, #declaration ";", #__VA_ARGS__},
#include "tests/tracer/oracle/rows.def"
};
const Text kLooks[] = {
#define LOOK(name, ...) {#name, "", #__VA_ARGS__},
#include "tests/tracer/oracle/rows.def"
};
#define ORACLE_TEXT(...) #__VA_ARGS__
#define ORACLE_EXPANDED(...) ORACLE_TEXT(__VA_ARGS__)

class Printer {
 public:
  Printer(const Program& p, const Options& options) : p_(p), options_(options), resolved_(resolve(p)) {}

  std::string print(const std::string& title) {
    lines(resolved_.lines, 6);
    const std::string body = std::exchange(out_, {});
    std::string setup = plain(p_.signature, 0, 0);
    if (names(body + before()).contains("opt")) setup = plain(p_.optimizer, 0, 0) + " " + setup;
    std::string parameters;
    for (const char* name : {"x", "y", "z"})
      parameters += std::string(parameters.empty() ? "" : ", ") + "Tensor" +
                    (names(body).contains(name) ? std::string(" ") + name : "");
    const std::string looks = look();
    std::set<std::string> used = names(body + setup + looks + before() + arguments());
    used.insert({"results", "x", "y", "z"});
    std::string moves = "x, y, z";
    if (used_ = used; any([](const Call& c) { return c.moved; })) {
      moves = "moved ? step(std::move(x), std::move(y), std::move(z)) : step(x, y, z)";
      used.insert("moved");
    } else {
      moves = "step(x, y, z)";
    }
    std::string plain_state, state;
    for (size_t i = std::size(kStates); i-- > 0;) {
      const Text& s = kStates[i];
      if (!used.contains(s.name)) continue;
      const std::string text =
          s.declaration +
          (s.set_up.empty() ? "" : " " + replaced(s.set_up, {{"grads", std::to_string(p_.grads)}}));
      for (const std::string& n : names(text)) used.insert(n);
      if (s.set_up.empty())
        plain_state = s.declaration + " " + plain_state;
      else
        state = "    " + text + "\n" + state;
    }
    used_ = used;
    std::string types;
    if (used.contains("Boom")) types += std::string("  ") + ORACLE_EXPANDED(ORACLE_BOOM) + "\n";
    if (used.contains("Batch")) types += std::string("  ") + ORACLE_EXPANDED(ORACLE_BATCH) + "\n";
    if (used.contains("Out")) types += std::string("  ") + ORACLE_EXPANDED(ORACLE_OUT) + "\n";
    std::string how = std::string(".compile = ") + (options_.compile ? "true" : "false");
    if (options_.verify) how += ", .verify = " + std::to_string(options_.verify);
    if (options_.debug) how += ", .debug = true";

    std::string t = std::string(used.contains("Out") ? "#include <map>\n" : "") +
                    "#include \"tandem/tandem.h\"\n#include \"tests/catch.h\"\n\nTEST_CASE(\"" + title +
                    "\", \"[tracer]\") {\n  namespace td = tandem; using td::Tensor;\n" + types +
                    "  const auto program = [](bool traced) {\n    std::vector<uint32_t> out; "
                    "const auto trace = [](auto f) { return td::trace(std::move(f), {" +
                    how + "}); };\n";
    if (names(looks).contains("show"))
      t += "    const auto show = [&](const Tensor& t) { if (!t.defined()) return out.push_back(7); for "
           "(float v "
           ": t.detach().to_vector<float>()) out.push_back(v == v ? std::bit_cast<uint32_t>(v) : 1); };\n";
    t += "    td::manual_seed(5); " + plain_state + "\n" + state +
         "    std::function<Tensor(Tensor, Tensor, Tensor)> self, step; "
         "self = [&](" +
         parameters + ") -> Tensor {\n" + body + "    };\n    " + setup +
         "\n    const auto call = [&](auto before) { try { " + (used.contains("depth") ? "depth = 0; " : "") +
         "before(); results.push_back(" + moves +
         "); if (results.size() > 3) results.erase(results.begin(), results.end() - 3); }";
    if (used.contains("Boom")) t += " catch (const Boom&) { out.push_back(2); }";
    t +=
        " catch (const std::exception& e) { const std::string s = e.what(); "
        "out.push_back(static_cast<uint32_t>(std::hash<std::string>()(s.substr(0, s.find(\" at \"))))); }\n" +
        looks + "    };\n";
    for (const Call& c : p_.calls) t += call(c);
    return t + "    return out; };\n  CHECK(program(false) == program(true));\n}\n";
  }

 private:
  static std::set<std::string> names(const std::string& text) {
    std::set<std::string> out;
    for_tokens(text, [&](const std::string& token) { out.insert(token); });
    return out;
  }
  template <class F>
  bool any(F&& f) const {
    for (const Call& c : p_.calls)
      if (f(c)) return true;
    return false;
  }
  static std::string value(int slot) {
    if (slot < 0) return "p[" + std::to_string(-1 - slot) + "]";
    return slot < kArguments ? std::string(1, static_cast<char>('x' + slot)) : "t" + std::to_string(slot - 2);
  }
  static std::string plain(Kind kind, int k, float f) {
    return replaced(row(kind).text, {{"k", std::to_string(k)}, {"f", number(f)}});
  }

  void lines(const std::vector<Line>& list, int indent) {
    const std::string space(static_cast<size_t>(indent), ' ');
    for (const Line& l : list) {
      if (l.returns) {
        out_ += space + "return " + value(l.a) + ";\n";
        continue;
      }
      if (l.gives >= 0) {
        out_ += space + value(l.gives) + " = " + value(l.a) + ";\n";
        continue;
      }
      const std::string result = value(l.slot);
      std::string text = replaced(l.row->text, {{"a", value(l.a)},
                                                {"b", value(l.b)},
                                                {"r", result},
                                                {"k", std::to_string(l.from->k)},
                                                {"f", number(l.from->f)},
                                                {"LAMBDA_BODY", "BODY"},
                                                {"RETURN", "return "}});
      if (l.from->what == Kind::give_up) text = value(l.a) + " = Tensor();";
      const bool one = text.find(';') == text.size() - 1;
      if (l.slot >= 0 && one && text.starts_with(result + " = "))
        text = "Tensor " + text;
      else if (l.slot >= 0)
        text = "Tensor " + result + "; { " + text + " }";
      else if (!one)
        text = "{ " + text + " }";
      const size_t body = text.find("BODY");
      if (body == text.npos) {
        out_ += space + text + "\n";
        continue;
      }
      out_ += space + text.substr(0, body) + "{\n";
      lines(l.body, indent + 2);
      out_ += space + "}" + text.substr(body + 4) + "\n";
    }
  }

  std::string look() const {
    std::string out;
    uint32_t bit = 1;
    for (const Text& l : kLooks) {
      if (p_.look & bit) out += "      " + l.set_up + "\n";
      bit <<= 1;
    }
    return out;
  }
  std::string before() const {
    std::string out;
    for (const Call& c : p_.calls)
      for (const Statement& s : c.before) out += outside(s);
    return out;
  }
  std::string arguments() const {
    std::string out;
    for (const Call& c : p_.calls)
      for (const Statement& s : {c.x, c.y, c.z}) out += plain(s.what, s.k, s.f);
    return out;
  }
  static std::string outside(const Statement& s) {
    const std::string text = plain(s.what, s.k, s.f);
    return text.find(';') == text.size() - 1 ? text + " " : "{ " + text + " } ";
  }

  // Host state is set where it changes.
  std::string call(const Call& c) {
    std::string t;
    const auto set = [&](const char* name, const std::string& now, std::string& last) {
      if (!used_.contains(name) || now == last) return;
      t += std::string(name) + " = " + now + "; ";
      last = now;
    };
    const auto yes = [](bool b) { return std::string(b ? "true" : "false"); };
    set("n", std::to_string(c.n), last_.n);
    set("trips", std::to_string(c.trips), last_.trips);
    set("position", std::to_string(c.position), last_.position);
    set("scale", number(c.scale), last_.scale);
    set("flag", yes(c.flag), last_.flag);
    set("flag2", yes(c.flag2), last_.flag2);
    set("boom", yes(c.boom), last_.boom);
    set("moved", yes(c.moved), last_.moved);
    for (const Statement& s : c.before) t += outside(s);
    for (const Statement& s : {c.x, c.y, c.z}) t += plain(s.what, s.k, s.f) + " ";
    return "    call([&] { " + t + "});\n";
  }

  const Program& p_;
  const Options options_;
  const Resolved resolved_;
  std::string out_;
  std::set<std::string> used_;
  struct {
    std::string n = "3", trips = "1", position = "0", scale = "1.f", flag = "false", flag2 = "false",
                boom = "false", moved = "false";
  } last_;
};

}  // namespace

std::string print(const Program& p, const std::string& title, const Options& options) {
  return Printer(p, options).print(title);
}

}  // namespace oracle
