// A strict reader of well-formed documents for tests: elements, attributes, text; named and numbered
// entities. Anything else that XML forbids is an exception.
#pragma once

#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace xml {

struct Element {
  std::string name, text;  // text: of this element alone
  std::map<std::string, std::string> attributes;
  std::vector<Element> children;

  std::string operator[](const std::string& key) const {
    const auto it = attributes.find(key);
    return it == attributes.end() ? std::string() : it->second;
  }
  bool is(const std::string& kind) const {
    return (" " + (*this)["class"] + " ").find(" " + kind + " ") != std::string::npos;
  }
  /// This element's text and all below it.
  std::string all_text() const {
    std::string out = text;
    for (const Element& c : children) out += "\n" + c.all_text();
    return out;
  }
  void each(const std::function<void(const Element&)>& f) const {
    f(*this);
    for (const Element& c : children) c.each(f);
  }
};

class Reader {
 public:
  explicit Reader(const std::string& text) : s_(text) {}
  Element document() {
    if (s_.rfind("<!DOCTYPE html>", 0) == 0) at_ = 15;
    blank();
    Element e = element();
    blank();
    if (at_ != s_.size()) fail("text after the document");
    return e;
  }

 private:
  [[noreturn]] void fail(const std::string& why) const {
    throw std::runtime_error(why + " at byte " + std::to_string(at_) + ": " + s_.substr(at_, 60));
  }
  char peek() const {
    if (at_ >= s_.size()) fail("the document ends too early");
    return s_[at_];
  }
  void expect(const std::string& what) {
    if (s_.compare(at_, what.size(), what) != 0) fail("expected " + what);
    at_ += what.size();
  }
  void blank() {
    while (at_ < s_.size() && (s_[at_] == ' ' || s_[at_] == '\n')) ++at_;
  }
  std::string word() {
    const size_t from = at_;
    while (std::isalnum(static_cast<unsigned char>(peek())) || peek() == '-') ++at_;
    if (at_ == from) fail("expected a name");
    return s_.substr(from, at_ - from);
  }
  /// Text up to `end`, entities resolved.
  std::string content(char end) {
    std::string out;
    while (peek() != end) {
      const char c = s_[at_];
      if (c == '<') fail("a bare <");
      if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') fail("a control character");
      if (c != '&') {
        out += c;
        ++at_;
        continue;
      }
      const size_t semicolon = s_.find(';', at_);
      if (semicolon == std::string::npos || semicolon - at_ > 8) fail("a bare &");
      const std::string name = s_.substr(at_ + 1, semicolon - at_ - 1);
      static const std::map<std::string, std::string> known = {{"amp", "&"},   {"lt", "<"},  {"gt", ">"},
                                                               {"quot", "\""}, {"#39", "'"}, {"#8592", "<-"},
                                                               {"#8594", "->"}};
      if (!known.contains(name)) fail("an unknown entity");
      out += known.at(name);
      at_ = semicolon + 1;
    }
    return out;
  }
  Element element() {
    Element e;
    expect("<");
    e.name = word();
    for (blank(); peek() != '>' && peek() != '/'; blank()) {
      const std::string key = word();
      expect("=\"");
      if (e.attributes.contains(key)) fail("an attribute twice");
      e.attributes[key] = content('"');
      expect("\"");
    }
    if (peek() == '/') {
      expect("/>");
      return e;
    }
    expect(">");
    for (;;) {
      e.text += content('<');
      if (s_.compare(at_, 2, "</") == 0) break;
      e.children.push_back(element());
    }
    expect("</" + e.name + ">");
    return e;
  }

  const std::string& s_;
  size_t at_ = 0;
};

inline Element parse(const std::string& text) { return Reader(text).document(); }

}  // namespace xml
